//! Issue and check: every kind of key, every kind of refusal.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use std::time::SystemTime;

use espalier_token::{
    Claims, IssuerKey, KeyError, VerifierKey, VerifyError, issue, verify, verify_late,
};

// Keys made for this test alone.
const ED_PRIVATE: &str = include_str!("keys/ed25519.pem");
const ED_PUBLIC: &str = include_str!("keys/ed25519.pub.pem");
const OTHER_PUBLIC: &str = include_str!("keys/other.pub.pem");
const EC_PRIVATE: &str = include_str!("keys/p256.pem");
const EC_PUBLIC: &str = include_str!("keys/p256.pub.pem");
const P384_PRIVATE: &str = include_str!("keys/p384.pem");
const P384_PUBLIC: &str = include_str!("keys/p384.pub.pem");
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn claims(ttl: Duration) -> Claims {
    Claims::new("news", SystemTime::now(), ttl)
}

fn pairs() -> Vec<(&'static str, IssuerKey, VerifierKey)> {
    vec![
        (
            "EdDSA",
            IssuerKey::from_pem(ED_PRIVATE.as_bytes()).unwrap(),
            VerifierKey::from_pem(ED_PUBLIC.as_bytes()).unwrap(),
        ),
        (
            "ES256",
            IssuerKey::from_pem(EC_PRIVATE.as_bytes()).unwrap(),
            VerifierKey::from_pem(EC_PUBLIC.as_bytes()).unwrap(),
        ),
        (
            "HS256",
            IssuerKey::from_secret(SECRET).unwrap(),
            VerifierKey::from_secret(SECRET).unwrap(),
        ),
    ]
}

#[test]
fn a_token_of_every_kind_of_key_is_accepted_by_its_key_among_others() {
    let keys: Vec<VerifierKey> = [VerifierKey::from_pem(OTHER_PUBLIC.as_bytes()).unwrap()]
        .into_iter()
        .chain(pairs().into_iter().map(|(_, _, key)| key))
        .collect();
    for (name, issuer, _) in pairs() {
        let mut expect = claims(Duration::from_secs(60));
        expect.keys = vec!["ab".repeat(32)];
        let token = issue(&issuer, &expect).unwrap();
        assert_eq!(verify(&keys, &token), Ok(expect), "{name}");
    }
}

#[test]
fn a_token_is_refused_by_every_other_key() {
    for (name, issuer, own) in pairs() {
        let token = issue(&issuer, &claims(Duration::from_secs(60))).unwrap();
        let others: Vec<VerifierKey> = pairs()
            .into_iter()
            .filter(|(other, ..)| *other != name)
            .map(|(_, _, key)| key)
            .collect();
        assert_eq!(
            verify(&others, &token),
            Err(VerifyError::UnknownSigner),
            "{name}"
        );
        assert_eq!(
            verify(&[], &token),
            Err(VerifyError::UnknownSigner),
            "{name}"
        );
        let mut changed = token.clone();
        let last = changed.pop().unwrap();
        // The last character of a 64-byte signature's encoding has spare bits, so the first is changed.
        changed.push(last);
        let at = changed.rfind('.').unwrap() + 1;
        let replacement = if &changed[at..=at] == "A" { "B" } else { "A" };
        changed.replace_range(at..=at, replacement);
        assert_eq!(
            verify(&[own], &changed),
            Err(VerifyError::UnknownSigner),
            "{name}"
        );
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    // The classic confusion: HS256 with the verifier's public key as its secret.
    let forged = IssuerKey::from_secret(ED_PUBLIC.as_bytes()).unwrap();
    let token = issue(&forged, &claims(Duration::from_secs(60))).unwrap();
    let keys = [VerifierKey::from_pem(ED_PUBLIC.as_bytes()).unwrap()];
    assert_eq!(verify(&keys, &token), Err(VerifyError::UnknownSigner));
}

#[test]
fn time_audience_and_form_are_checked() {
    let (_, issuer, key) = pairs().remove(2);
    let keys = [key];
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let expired = issue(
        &issuer,
        &Claims::new("news", hour_ago, Duration::from_secs(60)),
    )
    .unwrap();
    assert_eq!(verify(&keys, &expired), Err(VerifyError::Expired));
    assert_eq!(
        verify_late(&keys, &expired, Duration::from_secs(60)),
        Err(VerifyError::Expired)
    );
    assert!(verify_late(&keys, &expired, Duration::from_secs(3600)).is_ok());

    let sign = |body: &str| {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        encode(
            &Header::new(Algorithm::HS256),
            &body,
            &EncodingKey::from_secret(SECRET),
        )
        .unwrap()
    };
    let exp = claims(Duration::from_secs(60)).expires_at;
    let table = [
        (
            format!(r#"{{"aud":"other","channel":"news","exp":{exp}}}"#),
            VerifyError::WrongAudience,
        ),
        (
            format!(r#"{{"channel":"news","exp":{exp}}}"#),
            VerifyError::Malformed,
        ),
        (
            r#"{"aud":"espalier","channel":"news"}"#.to_owned(),
            VerifyError::Malformed,
        ),
        (
            format!(r#"{{"aud":"espalier","exp":{exp}}}"#),
            VerifyError::Malformed,
        ),
        (
            format!(r#"{{"aud":"espalier","channel":"news","exp":{exp},"nbf":{exp}}}"#),
            VerifyError::NotYetValid,
        ),
        (
            format!(r#"{{"aud":"espalier","channel":"news","exp":{exp},"keys":["xyz"]}}"#),
            VerifyError::Malformed,
        ),
        (
            r#"{"aud":"espalier","channel":"news","exp":"soon"}"#.to_owned(),
            VerifyError::Malformed,
        ),
    ];
    for (body, expect) in table {
        assert_eq!(verify(&keys, &sign(&body)), Err(expect), "{body}");
    }
    let with_list = sign(&format!(
        r#"{{"aud":["x","espalier"],"channel":"news","exp":{exp}}}"#
    ));
    assert!(verify(&keys, &with_list).is_ok());
    for garbage in ["", "a", "a.b.c", "....", &"x".repeat(10_000)] {
        assert_eq!(
            verify(&keys, garbage),
            Err(VerifyError::Malformed),
            "{garbage}"
        );
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    // {"alg":"none"} . {"aud":"espalier","channel":"news","exp":99999999999} .
    let token = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJlc3BhbGllciIsImNoYW5uZWwiOiJuZXdzIiwiZXhwIjo5OTk5OTk5OTk5OX0.";
    assert_eq!(
        verify(&[VerifierKey::from_secret(SECRET).unwrap()], token),
        Err(VerifyError::Malformed)
    );
}

#[test]
fn keys_of_the_wrong_kind_are_refused() {
    for pem in [
        ED_PUBLIC,
        EC_PUBLIC,
        P384_PRIVATE,
        "",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        assert!(
            matches!(
                IssuerKey::from_pem(pem.as_bytes()),
                Err(KeyError::NotAPrivateKey)
            ),
            "{pem}"
        );
    }
    for pem in [ED_PRIVATE, EC_PRIVATE, P384_PUBLIC, "rubbish"] {
        assert!(
            matches!(
                VerifierKey::from_pem(pem.as_bytes()),
                Err(KeyError::NotAPublicKey)
            ),
            "{pem}"
        );
    }
    assert!(matches!(
        IssuerKey::from_secret(b"short"),
        Err(KeyError::SecretTooShort { length: 5 })
    ));
    assert!(matches!(
        VerifierKey::from_secret(b"short"),
        Err(KeyError::SecretTooShort { length: 5 })
    ));
}

#[test]
fn key_files_are_read_and_a_final_line_break_is_no_part_of_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
    let token = issue(
        &IssuerKey::from_secret_file(&path).unwrap(),
        &claims(Duration::from_secs(60)),
    )
    .unwrap();
    assert!(verify(&[VerifierKey::from_secret(SECRET).unwrap()], &token).is_ok());
    let pem = dir.path().join("key.pem");
    std::fs::write(&pem, ED_PRIVATE).unwrap();
    let public = dir.path().join("key.pub.pem");
    std::fs::write(&public, ED_PUBLIC).unwrap();
    let token = issue(
        &IssuerKey::from_pem_file(&pem).unwrap(),
        &claims(Duration::from_secs(60)),
    )
    .unwrap();
    assert!(verify(&[VerifierKey::from_pem_file(&public).unwrap()], &token).is_ok());
    assert!(matches!(
        IssuerKey::from_pem_file(dir.path().join("none")),
        Err(KeyError::Read { .. })
    ));
}

#[test]
fn debug_output_has_no_secrets() {
    let issuer = format!("{:?}", IssuerKey::from_secret(SECRET).unwrap());
    let verifier = format!("{:?}", VerifierKey::from_secret(SECRET).unwrap());
    for text in [issuer, verifier] {
        assert!(
            !text.contains("0123456789") && !text.contains("48, 49, 50"),
            "{text}"
        );
    }
}
