//! What this peer's network address translator lets through, by the peer's own observations: it asks both
//! of a node's STUN ports from one socket (RFC 8489) and compares what they see.
//!
//! | both see | class |
//! |---|---|
//! | the socket's own address | open |
//! | one and the same other address | port-restricted: one mapping towards everybody |
//! | different addresses | symmetric: a mapping for each destination |
//! | nothing comes back from either | no UDP |
//!
//! Limits: whether a translator filters by port or only by address is not told apart, so the stricter is
//! assumed; a translator that happens to keep one mapping for two ports of one host but not for two hosts
//! is taken for better than it is. If only one port answers nothing is concluded.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use espalier_proto::v1::NatClass;
use rtc_stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, Getter as _, Message, Setter, TransactionId,
};
use rtc_stun::xoraddr::XorMappedAddress;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout_at};

/// How long each of three requests waits for its answer: each twice as long as the one before (RFC 8489,
/// section 6.2.1, which goes on for longer).
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];
/// No response has more; what is longer is cut off and does not decode.
const MOST_BYTES: usize = 548;

/// What was seen of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observation {
    own: SocketAddr,
    seen: [Option<SocketAddr>; 2],
}

impl Observation {
    fn class(&self) -> NatClass {
        match self.seen {
            [None, None] => NatClass::NoUdp,
            [Some(one), Some(other)] if one != other => NatClass::Symmetric,
            [Some(seen), Some(_)] if seen == self.own => NatClass::Open,
            [Some(_), Some(_)] => NatClass::PortRestricted,
            [Some(_), None] | [None, Some(_)] => NatClass::Unspecified,
        }
    }
}

/// Asks two ports of a host, and classifies what they see. Takes up to three and a half seconds.
///
/// # Errors
/// When the host has no address, or this machine has no way to it.
pub(crate) async fn observe(host: &str, ports: [u16; 2]) -> io::Result<NatClass> {
    observe_with(host, ports, PATIENCE).await
}

async fn observe_with(
    host: &str,
    ports: [u16; 2],
    patience: [Duration; 3],
) -> io::Result<NatClass> {
    let host = resolve(host).await?;
    let socket = UdpSocket::bind((unspecified(host), 0)).await?;
    let own = SocketAddr::new(
        own_address(host, ports[0]).await?,
        socket.local_addr()?.port(),
    );
    let ports = ports.map(|port| SocketAddr::new(host, port));
    let seen = ask(&socket, ports, patience).await;
    Ok(Observation { own, seen }.class())
}

/// An address of the host: of IPv4 if it has one, because that is what is translated.
async fn resolve(host: &str) -> io::Result<IpAddr> {
    let addresses = lookup_host(format!("{host}:0")).await?;
    let mut addresses: Vec<_> = addresses
        .map(|address| address.ip().to_canonical())
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    addresses.first().copied().ok_or_else(none)
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The address that this machine uses towards the host. Nothing is sent.
async fn own_address(host: IpAddr, port: u16) -> io::Result<IpAddr> {
    let scratch = UdpSocket::bind((unspecified(host), 0)).await?;
    scratch.connect((host, port)).await?;
    Ok(scratch.local_addr()?.ip())
}

/// A request that is repeated until it is answered.
struct Question {
    to: SocketAddr,
    id: TransactionId,
    request: Vec<u8>,
}

impl Question {
    fn new(to: SocketAddr) -> Option<Self> {
        let id = TransactionId(rand::random());
        let parts: [Box<dyn Setter>; 2] = [Box::new(BINDING_REQUEST), Box::new(id)];
        let mut message = Message::new();
        message.build(&parts).ok()?;
        let request = message.raw;
        Some(Self { to, id, request })
    }

    /// What the other end sees, if this is its answer.
    fn read(&self, datagram: &[u8], from: SocketAddr) -> Option<SocketAddr> {
        let mut message = Message::new();
        message.unmarshal_binary(datagram).ok()?;
        let ours = message.typ == BINDING_SUCCESS && message.transaction_id == self.id;
        if !ours || from != self.to {
            return None;
        }
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&message).ok()?;
        Some(SocketAddr::new(mapped.ip.to_canonical(), mapped.port))
    }
}

async fn ask(
    socket: &UdpSocket,
    ports: [SocketAddr; 2],
    patience: [Duration; 3],
) -> [Option<SocketAddr>; 2] {
    let questions = ports.map(Question::new);
    let mut seen = [None, None];
    for wait in patience {
        for (question, seen) in questions.iter().zip(&seen) {
            if let Some(question) = question.as_ref().filter(|_| seen.is_none()) {
                // What cannot be sent is lost on the way; it is asked again.
                drop(socket.send_to(&question.request, question.to).await);
            }
        }
        listen(socket, &questions, &mut seen, Instant::now() + wait).await;
        if seen.iter().all(Option::is_some) {
            break;
        }
    }
    seen
}

/// Takes in answers until both are there, or the time has come.
async fn listen(
    socket: &UdpSocket,
    questions: &[Option<Question>; 2],
    seen: &mut [Option<SocketAddr>; 2],
    until: Instant,
) {
    let mut buffer = [0; MOST_BYTES];
    while seen.iter().any(Option::is_none) {
        let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await else {
            return;
        };
        // An error is an ICMP message about something sent before: no answer, and no reason to stop.
        let Ok((length, from)) = received else {
            tokio::task::yield_now().await;
            continue;
        };
        for (question, seen) in questions.iter().zip(seen.iter_mut()) {
            let answer = question
                .as_ref()
                .and_then(|it| it.read(&buffer[..length], from));
            *seen = seen.or(answer);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_both_ports_see_makes_the_class() {
        let (own, one, other) = (at("10.0.0.2:5"), at("192.0.2.1:5"), at("192.0.2.1:6"));
        for (seen, class) in [
            ([Some(own), Some(own)], NatClass::Open),
            ([Some(one), Some(one)], NatClass::PortRestricted),
            ([Some(one), Some(other)], NatClass::Symmetric),
            ([Some(own), Some(other)], NatClass::Symmetric),
            ([None, None], NatClass::NoUdp),
            ([Some(own), None], NatClass::Unspecified),
            ([None, Some(one)], NatClass::Unspecified),
        ] {
            assert_eq!(Observation { own, seen }.class(), class, "{seen:?}");
        }
    }

    fn response(request: &Message, seen: SocketAddr) -> Vec<u8> {
        let (ip, port) = (seen.ip(), seen.port());
        let parts: [Box<dyn Setter>; 3] = [
            Box::new(BINDING_SUCCESS),
            Box::new(request.transaction_id),
            Box::new(XorMappedAddress { ip, port }),
        ];
        let mut response = Message::new();
        response.build(&parts).unwrap();
        response.raw
    }

    /// A STUN port that says what it likes.
    pub(crate) async fn port(sees: impl Fn(SocketAddr) -> Vec<SocketAddr> + Send + 'static) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let number = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; MOST_BYTES];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let mut request = Message::new();
                request.unmarshal_binary(&buffer[..length]).unwrap();
                assert_eq!(request.typ, BINDING_REQUEST);
                for seen in sees(from) {
                    let response = response(&request, seen);
                    socket.send_to(&response, from).await.unwrap();
                }
            }
        });
        number
    }

    #[tokio::test]
    async fn ports_are_asked_from_one_socket_and_believed() {
        let (one, other) = (at("192.0.2.1:5"), at("192.0.2.1:6"));
        let itself = || port(|from| vec![from]);
        let open = observe("127.0.0.1", [itself().await, itself().await]).await;
        assert_eq!(open.unwrap(), NatClass::Open);
        let says = |seen| port(move |_| vec![seen]);
        let mapped = observe("127.0.0.1", [says(one).await, says(one).await]).await;
        assert_eq!(mapped.unwrap(), NatClass::PortRestricted);
        let changing = observe("127.0.0.1", [says(one).await, says(other).await]).await;
        assert_eq!(changing.unwrap(), NatClass::Symmetric);
    }

    #[tokio::test]
    async fn the_first_answer_of_a_port_counts_and_no_other_port_answers_for_it() {
        let (one, other) = (at("192.0.2.1:5"), at("192.0.2.1:6"));
        let twice = || port(move |_| vec![one, other]);
        let class = observe("127.0.0.1", [twice().await, twice().await]).await;
        assert_eq!(class.unwrap(), NatClass::PortRestricted);
    }

    #[tokio::test]
    async fn who_hears_nothing_has_no_udp_and_half_an_answer_says_nothing() {
        let silent = || port(|_| Vec::new());
        let patience = [Duration::from_millis(100); 3];
        let observe = |ports| observe_with("127.0.0.1", ports, patience);
        let class = observe([silent().await, silent().await]).await;
        assert_eq!(class.unwrap(), NatClass::NoUdp);
        // Nobody listens there: the kernel says so, which is no answer either.
        assert_eq!(observe([1, 2]).await.unwrap(), NatClass::NoUdp);
        let half = [port(|from| vec![from]).await, silent().await];
        assert_eq!(observe(half).await.unwrap(), NatClass::Unspecified);
    }

    #[tokio::test]
    async fn a_host_without_an_address_is_an_error() {
        assert!(observe("", [1, 2]).await.is_err());
    }
}
