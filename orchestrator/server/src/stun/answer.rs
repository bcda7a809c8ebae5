//! What is answered to one datagram: pure.
//!
//! A server of RFC 8489 without authentication, of which only binding requests are answered. The work for a
//! datagram is bounded by its length, which is bounded by [`MOST_BYTES`]; an answer is at most
//! [`MOST_GROWTH`] bytes longer than its request, so that a forged sender gains an attacker next to nothing.

use std::net::SocketAddr;

use rtc_stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY,
    ATTR_MESSAGE_INTEGRITY_SHA256, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USER_HASH,
    ATTR_USERNAME, AttrType,
};
use rtc_stun::error_code::{CODE_UNKNOWN_ATTRIBUTE, ErrorCodeAttribute};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, MESSAGE_HEADER_SIZE, Message, Setter,
    is_stun_message,
};
use rtc_stun::uattrs::UnknownAttributes;
use rtc_stun::xoraddr::XorMappedAddress;

/// Longer datagrams are not looked at. A binding request has 20 bytes, and seldom more than 100.
pub(super) const MOST_BYTES: usize = 548;
/// An IPv6 address in a success response is the longest thing that is not in the request.
#[cfg(test)]
pub(super) const MOST_GROWTH: usize = 24;

/// Attributes that a client may send although nobody here needs them: a server without authentication
/// ignores credentials, and a client may ask with what it asks its peers with.
const IGNORED: [AttrType; 8] = [
    ATTR_USERNAME,
    ATTR_USER_HASH,
    ATTR_MESSAGE_INTEGRITY,
    ATTR_MESSAGE_INTEGRITY_SHA256,
    ATTR_PRIORITY,
    ATTR_USE_CANDIDATE,
    ATTR_ICE_CONTROLLED,
    ATTR_ICE_CONTROLLING,
];

/// Returns the answer to a datagram, if it deserves one.
pub(super) fn answer(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    if datagram.len() > MOST_BYTES || !is_stun_message(datagram) {
        return None;
    }
    let mut request = Message::new();
    request.unmarshal_binary(datagram).ok()?;
    let whole = datagram.len() == MESSAGE_HEADER_SIZE + usize::try_from(request.length).ok()?;
    if !whole || request.typ != BINDING_REQUEST {
        return None;
    }
    let signed = request.contains(ATTR_FINGERPRINT);
    if signed && FINGERPRINT.check(&request).is_err() {
        return None;
    }
    let attributes = request.attributes.0.iter().map(|attribute| attribute.typ);
    let unknown: Vec<_> = attributes
        .filter(|kind| kind.required() && !IGNORED.contains(kind))
        .collect();
    let body: Vec<Box<dyn Setter>> = if unknown.is_empty() {
        let (ip, port) = (from.ip().to_canonical(), from.port());
        vec![
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress { ip, port }),
        ]
    } else {
        refusal(unknown)
    };
    respond(&request, body, signed)
}

/// Each unknown attribute took at least four bytes of the request, and is named in two.
fn refusal(unknown: Vec<AttrType>) -> Vec<Box<dyn Setter>> {
    let code = ErrorCodeAttribute {
        code: CODE_UNKNOWN_ATTRIBUTE,
        reason: Vec::new(),
    };
    vec![
        Box::new(BINDING_ERROR),
        Box::new(code),
        Box::new(UnknownAttributes(unknown)),
    ]
}

fn respond(request: &Message, mut body: Vec<Box<dyn Setter>>, signed: bool) -> Option<Vec<u8>> {
    body.insert(1, Box::new(request.transaction_id));
    if signed {
        body.push(Box::new(FINGERPRINT));
    }
    let mut response = Message::new();
    response.build(&body).ok()?;
    Some(response.raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc_stun::attributes::{ATTR_CHANGE_REQUEST, ATTR_SOFTWARE};
    use rtc_stun::message::{Getter, TransactionId};

    use super::*;

    fn request(setters: Vec<Box<dyn Setter>>) -> Message {
        let mut all: Vec<Box<dyn Setter>> =
            vec![Box::new(BINDING_REQUEST), Box::new(TransactionId([9; 12]))];
        all.extend(setters);
        let mut message = Message::new();
        message.build(&all).unwrap();
        message
    }

    fn with(kind: AttrType, value: &[u8]) -> Message {
        let mut message = request(Vec::new());
        message.add(kind, value);
        message
    }

    fn read(bytes: &[u8]) -> Message {
        let mut message = Message::new();
        message.unmarshal_binary(bytes).unwrap();
        message
    }

    #[test]
    fn a_request_is_answered_with_the_address_that_it_came_from() {
        for (from, seen) in [
            ("192.0.2.1:50000", "192.0.2.1:50000"),
            ("[2001:db8::1]:3", "[2001:db8::1]:3"),
            ("[::ffff:192.0.2.1]:9", "192.0.2.1:9"),
        ] {
            let request = request(Vec::new());
            let response = read(&answer(&request.raw, from.parse().unwrap()).unwrap());
            assert_eq!(response.typ, BINDING_SUCCESS);
            assert_eq!(response.transaction_id, request.transaction_id);
            let mut mapped = XorMappedAddress::default();
            mapped.get_from(&response).unwrap();
            let mapped = SocketAddr::new(mapped.ip, mapped.port);
            assert_eq!(mapped, seen.parse().unwrap(), "{from}");
        }
    }

    /// RFC 5769, section 2.2 and 2.1 have such messages with authentication; this one is bytes by hand.
    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        let request = [
            0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        let response = answer(&request, "192.0.2.1:32853".parse().unwrap()).unwrap();
        let mut expected = request.to_vec();
        expected[..4].copy_from_slice(&[1, 1, 0, 12]);
        // The port and the address, each under the magic cookie.
        expected.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(response, expected);
    }

    #[test]
    fn a_fingerprint_is_checked_and_answered_with_one() {
        let from = "192.0.2.1:5".parse().unwrap();
        let mut signed = request(vec![Box::new(FINGERPRINT)]).raw;
        let response = read(&answer(&signed, from).unwrap());
        FINGERPRINT.check(&response).unwrap();
        *signed.last_mut().unwrap() ^= 1;
        assert_eq!(answer(&signed, from), None);
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        let from = "192.0.2.1:5".parse().unwrap();
        let asks_for_change = with(ATTR_CHANGE_REQUEST, &[0, 0, 0, 6]);
        let response = read(&answer(&asks_for_change.raw, from).unwrap());
        assert_eq!(response.typ, BINDING_ERROR);
        let mut named = UnknownAttributes(Vec::new());
        named.get_from(&response).unwrap();
        assert_eq!(named.0, [ATTR_CHANGE_REQUEST]);
        for ignored in [ATTR_SOFTWARE, ATTR_USERNAME, ATTR_MESSAGE_INTEGRITY] {
            let request = with(ignored, b"abcd");
            let response = read(&answer(&request.raw, from).unwrap());
            assert_eq!(response.typ, BINDING_SUCCESS, "{ignored}");
        }
    }

    #[test]
    fn nothing_else_is_answered() {
        let from = "192.0.2.1:5".parse().unwrap();
        let good = request(Vec::new()).raw;
        let change = |at: usize, to: u8| {
            let mut other = good.clone();
            other[at] = to;
            other
        };
        let long = with(ATTR_SOFTWARE, &[b'x'; MOST_BYTES]);
        for silent in [
            Vec::new(),
            good[..19].to_vec(),
            change(4, 0x22),               // another cookie
            change(1, 0x11),               // an indication
            change(0, 1),                  // a response
            change(1, 3),                  // an allocation
            change(3, 4),                  // shorter than it says
            [&good[..], &[0; 4]].concat(), // longer than it says
            long.raw,
        ] {
            assert_eq!(answer(&silent, from), None, "{silent:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_much_longer_than_its_request(
            attributes in prop::collection::vec(any::<(u16, Vec<u8>)>(), 0..40),
            signed: bool,
        ) {
            let mut message = request(Vec::new());
            for (kind, value) in attributes {
                message.add(AttrType(kind), &value);
            }
            if signed {
                FINGERPRINT.add_to(&mut message).unwrap();
            }
            let from = "[2001:db8::1]:3".parse().unwrap();
            if let Some(response) = answer(&message.raw, from) {
                prop_assert!(response.len() <= message.raw.len() + MOST_GROWTH);
            }
        }

        #[test]
        fn any_bytes_are_borne(mut bytes: Vec<u8>, stun: bool) {
            if stun && bytes.len() >= 20 {
                bytes[..8].copy_from_slice(&request(Vec::new()).raw[..8]);
                let length = u16::try_from(bytes.len() - 20).unwrap();
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
            }
            answer(&bytes, "192.0.2.1:5".parse().unwrap());
        }
    }
}
