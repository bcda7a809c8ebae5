//! Signing, verifying and refusing statements, and the test vectors in `proto/vectors`.
//!
//! `ESPALIER_WRITE_VECTORS=1 cargo test -p espalier-media --test statements` writes the vectors anew;
//! without it the file must be what would be written.

use std::time::Duration;

use bytes::Bytes;
use espalier_media::limits::{MAX_SIGNED_LEN, MAX_STATEMENT_LEN};
use espalier_media::{
    ByteRange, CHUNK_SIZE, ChunkHashes, Descriptor, InvalidStatement, KeyError, MasterHeader,
    ObjectHasher, ObjectKey, PublicKey, SIGNING_DOMAIN, SignError, SignedStatement, Statement,
    StatementError, StatementKey, Track, TrackHeader, TrackIndex, TrackKind, TrustedKeys,
};
use serde_json::{Value, json};

fn key() -> StatementKey {
    StatementKey::from_seed(&[7; 32])
}

fn trusted() -> TrustedKeys {
    TrustedKeys::new([key().public_key()])
}

fn master() -> MasterHeader {
    let track = |index, name: &str, kind, group: &str, plays_with: &[&str]| Track {
        index: TrackIndex(index),
        name: name.to_owned(),
        uri: format!("https://origin.example/live/{name}.m3u8"),
        bandwidth_bps: u64::from(index == 0) * 1_500_000,
        kind,
        group: group.to_owned(),
        plays_with: plays_with.iter().map(|group| (*group).to_owned()).collect(),
        default_rendition: index == 1,
    };
    MasterHeader {
        revision: 2,
        tracks: vec![
            track(0, "v0", TrackKind::Variant, "", &["aac"]),
            track(1, "a0", TrackKind::Audio, "aac", &[]),
        ],
        playlist: "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1500000,AUDIO=\"aac\"\nv0/index.m3u8\n"
            .to_owned(),
    }
}

fn header() -> TrackHeader {
    TrackHeader {
        track: TrackIndex(0),
        epoch: 1,
        from_sequence: 40,
        target_duration: Duration::from_secs(2),
        lines: vec![
            "#EXT-X-VERSION:7".to_owned(),
            "#EXT-X-TARGETDURATION:2".to_owned(),
        ],
        window_segments: 10,
        end_sequence: None,
    }
}

/// The bytes 0, 1, … 250, 0, 1, …
fn pattern(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

fn descriptor(length: usize) -> Descriptor {
    let mut hasher = ObjectHasher::new();
    hasher.push(&pattern(length)).expect("short");
    let hashed = hasher.finish();
    Descriptor {
        key: ObjectKey::segment(TrackIndex(0), 1, 42),
        length: hashed.length,
        chunk_hashes: hashed.chunk_hashes,
        duration: Duration::from_micros(2_002_000),
        program_date_time_ms: Some(1_795_417_200_250),
        lines: vec![
            "#EXT-X-DISCONTINUITY".to_owned(),
            "#EXTINF:2.002,".to_owned(),
        ],
        key_lines: vec!["#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/1\"".to_owned()],
        init_sequence: Some(40),
        discontinuity_sequence: 3,
        uri: "https://origin.example/live/42.m4s".to_owned(),
        byte_range: Some(ByteRange {
            offset: 1000,
            length: hashed.length,
        }),
    }
}

fn sign(statement: Statement) -> SignedStatement {
    SignedStatement::sign(statement, &key()).expect("a statement")
}

#[test]
fn what_is_signed_is_read_back() {
    let statements = [
        Statement::Master(master()),
        Statement::Track(header()),
        Statement::Object(descriptor(CHUNK_SIZE * 2 + 5)),
        Statement::Object(Descriptor {
            byte_range: None,
            ..descriptor(0)
        }),
    ];
    for statement in statements {
        let signed = sign(statement.clone());
        assert_eq!(signed.statement(), &statement);
        let read = SignedStatement::decode(signed.encoded().clone(), &trusted()).expect("verified");
        assert_eq!(read, signed);
        assert_eq!(read.payload(), signed.payload());
    }
}

#[test]
fn equal_statements_make_equal_bytes() {
    let twice = [
        sign(Statement::Track(header())),
        sign(Statement::Track(header())),
    ];
    assert_eq!(twice[0].encoded(), twice[1].encoded());
}

#[test]
fn every_changed_bit_is_noticed() {
    let signed = sign(Statement::Object(descriptor(100)));
    let encoded = signed.encoded();
    for at in 0..encoded.len() {
        let mut bytes = encoded.to_vec();
        bytes[at] ^= 1;
        let read = SignedStatement::decode(Bytes::from(bytes), &trusted());
        assert!(read.is_err(), "byte {at}");
    }
    for length in 0..encoded.len() {
        assert!(
            SignedStatement::decode(encoded.slice(..length), &trusted()).is_err(),
            "{length}"
        );
    }
}

#[test]
fn others_keys_are_not_trusted() {
    let signed = sign(Statement::Track(header()));
    let other = TrustedKeys::new([StatementKey::from_seed(&[8; 32]).public_key()]);
    let refused = SignedStatement::decode(signed.encoded().clone(), &other);
    assert_eq!(
        refused,
        Err(StatementError::UntrustedKey(key().public_key().id()))
    );
    let none = SignedStatement::decode(signed.encoded().clone(), &TrustedKeys::default());
    assert!(none.is_err());
}

#[test]
fn a_signature_is_for_statements_only() {
    use ed25519_dalek::Signer as _;
    let signed = sign(Statement::Track(header()));
    // The same key, the same payload, but not the domain.
    let raw = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).sign(signed.payload());
    let key_id = key().public_key().id();
    let parts = (signed.payload().clone(), raw.to_bytes());
    let refused = SignedStatement::from_parts(parts.0, &parts.1, &key_id.0, &trusted());
    assert_eq!(refused, Err(StatementError::Signature));
}

#[test]
fn statements_beyond_their_limits_are_neither_signed_nor_read() {
    let long = |count: usize, length: usize| vec![format!("#{}", "x".repeat(length - 1)); count];
    let object = |change: &dyn Fn(&mut Descriptor)| {
        let mut descriptor = descriptor(10);
        change(&mut descriptor);
        SignedStatement::sign(Statement::Object(descriptor), &key()).map(|_| ())
    };
    use InvalidStatement::{Exceeds, Malformed, Missing};
    let invalid = |error| Err(SignError::Invalid(error));
    assert_eq!(
        object(&|d| d.lines = long(257, 2)),
        invalid(Exceeds("lines"))
    );
    assert_eq!(
        object(&|d| d.lines = long(1, 16_385)),
        invalid(Exceeds("lines"))
    );
    assert_eq!(
        object(&|d| d.key_lines = vec!["URI".to_owned()]),
        invalid(Malformed("key lines"))
    );
    assert_eq!(
        object(&|d| d.lines = vec!["#a\nhttp://x".to_owned()]),
        invalid(Malformed("lines"))
    );
    assert_eq!(object(&|d| d.uri.clear()), invalid(Missing("URI")));
    assert_eq!(
        object(&|d| d.uri = "x".repeat(8_193)),
        invalid(Exceeds("URI"))
    );
    assert_eq!(
        object(&|d| d.key.track = TrackIndex(65_536)),
        invalid(Exceeds("track index"))
    );
    assert_eq!(object(&|d| d.key.part = 1), invalid(Malformed("part")));
    assert_eq!(
        object(&|d| d.length = 64 << 20 | 1),
        invalid(Exceeds("length"))
    );
    assert_eq!(object(&|d| d.length = u64::MAX), invalid(Exceeds("length")));
    assert_eq!(
        object(&|d| d.chunk_hashes = ChunkHashes::default()),
        invalid(Malformed("chunk hashes"))
    );
    assert_eq!(
        object(&|d| d.byte_range = Some(ByteRange {
            offset: 0,
            length: 9
        })),
        invalid(Malformed("byte range"))
    );
    assert_eq!(
        object(&|d| d.duration = Duration::from_secs(901)),
        invalid(Exceeds("duration"))
    );
    let too_long = object(&|d| d.lines = long(9, 16_000));
    assert!(matches!(too_long, Err(SignError::TooLong(length)) if length > MAX_STATEMENT_LEN));

    let track = |change: &dyn Fn(&mut MasterHeader)| {
        let mut master = master();
        change(&mut master);
        SignedStatement::sign(Statement::Master(master), &key()).map(|_| ())
    };
    assert_eq!(track(&|m| m.tracks.clear()), invalid(Missing("tracks")));
    assert_eq!(
        track(&|m| m.tracks[0].name = "V0".to_owned()),
        invalid(Malformed("track name"))
    );
    assert_eq!(
        track(&|m| m.tracks[0].name = "v".repeat(33)),
        invalid(Exceeds("track name"))
    );
    assert_eq!(
        track(&|m| m.tracks[0].name = "a0".to_owned()),
        invalid(Malformed("tracks (two alike)"))
    );
    let zero = TrackHeader {
        target_duration: Duration::ZERO,
        ..header()
    };
    let zero = SignedStatement::sign(Statement::Track(zero), &key());
    assert_eq!(zero, Err(SignError::Invalid(Missing("target duration"))));

    let long = Bytes::from(vec![0; MAX_SIGNED_LEN + 1]);
    let refused = SignedStatement::decode(long, &trusted());
    assert_eq!(refused, Err(StatementError::TooLong(MAX_SIGNED_LEN + 1)));
}

#[test]
fn the_longest_object_fits_into_a_statement() {
    let chunks = espalier_media::limits::MAX_CHUNKS as usize;
    let hashes = ChunkHashes::from_concatenated(vec![0; chunks * 32].into()).expect("whole hashes");
    let longest = Descriptor {
        length: espalier_media::limits::MAX_OBJECT_LEN,
        chunk_hashes: hashes,
        byte_range: None,
        ..descriptor(0)
    };
    let signed = sign(Statement::Object(longest));
    assert!(SignedStatement::decode(signed.encoded().clone(), &trusted()).is_ok());
}

#[test]
fn chunks_lie_where_they_should() {
    let object = descriptor(CHUNK_SIZE * 2 + 5);
    use espalier_media::ChunkIndex;
    assert_eq!(object.chunk_count(), 3);
    assert_eq!(object.chunk_len(ChunkIndex(2)), Some(5));
    assert_eq!(object.chunk_len(ChunkIndex(3)), None);
    assert_eq!(object.chunk_range(ChunkIndex(1)), Some(61_440..122_880));
    let range = object.resource_range(ChunkIndex(1), 2).expect("chunks");
    assert_eq!(
        range,
        ByteRange {
            offset: 1000 + 61_440,
            length: 61_445
        }
    );
    assert_eq!(object.resource_range(ChunkIndex(1), 3), None);
    assert_eq!(object.resource_range(ChunkIndex(1), 0), None);
    assert_eq!(
        object.init_key(),
        Some(ObjectKey::init(TrackIndex(0), 1, 40))
    );
    assert_eq!(object.ext(), "m4s");
    assert_eq!(
        Descriptor {
            uri: "http://x/y.z/seg?a=b.c".to_owned(),
            ..object
        }
        .ext(),
        "mp4"
    );
}

#[test]
fn a_later_header_supersedes() {
    let base = header();
    let later = TrackHeader {
        from_sequence: 41,
        ..base.clone()
    };
    let ended = TrackHeader {
        end_sequence: Some(50),
        ..base.clone()
    };
    let epoch = TrackHeader {
        epoch: 2,
        from_sequence: 0,
        ..base.clone()
    };
    assert!(later.supersedes(&base) && ended.supersedes(&base) && epoch.supersedes(&later));
    assert!(!base.supersedes(&base) && !base.supersedes(&later) && !ended.supersedes(&later));
}

#[test]
fn keys_survive_their_files() {
    let pem = key().to_pkcs8_pem().expect("a key");
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"));
    let read = StatementKey::from_pkcs8_pem(&pem).expect("a key");
    assert_eq!(read.public_key(), key().public_key());
    assert_eq!(
        StatementKey::from_pkcs8_pem("no").err(),
        Some(KeyError::Private)
    );
    assert_eq!(PublicKey::from_bytes(&[1; 31]), Err(KeyError::Public));
    // A point of small order, with which any message verifies.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(PublicKey::from_bytes(&weak), Err(KeyError::Public));
    assert!(
        !format!("{:?}", key()).contains("07"),
        "a secret is printed"
    );
}

// ---- vectors ------------------------------------------------------------------------------------

const VECTORS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../proto/vectors/statements.json"
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal digits");
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn vector(name: &str, payload: &[u8], signature: &[u8], key_id: &[u8]) -> Value {
    let read = SignedStatement::from_parts(
        Bytes::copy_from_slice(payload),
        signature,
        key_id,
        &trusted(),
    );
    let result = match read {
        Ok(_) => "accepted",
        Err(StatementError::TooLong(_)) => "too_long",
        Err(StatementError::Encoding) => "encoding",
        Err(StatementError::UntrustedKey(_)) => "untrusted_key",
        Err(StatementError::Signature) => "signature",
        Err(StatementError::Invalid(_)) => "invalid",
    };
    json!({
        "name": name,
        "payload": hex(payload),
        "signature": hex(signature),
        "key_id": hex(key_id),
        "result": result,
    })
}

/// Signs bytes that need not be a statement.
fn sign_raw(payload: &[u8]) -> [u8; 64] {
    use ed25519_dalek::Signer as _;
    let raw = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    raw.sign(&[SIGNING_DOMAIN, payload].concat()).to_bytes()
}

fn make_vectors() -> Value {
    let key_id = key().public_key().id().0;
    let good = |name: &str, statement: Statement| {
        let signed = sign(statement);
        vector(name, signed.payload(), signed.signature(), &key_id)
    };
    let object = sign(Statement::Object(descriptor(CHUNK_SIZE + 1)));
    let (payload, signature) = (object.payload().to_vec(), *object.signature());
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x80;
        bytes
    };
    let raw = |name: &str, payload: &[u8]| vector(name, payload, &sign_raw(payload), &key_id);
    let chunks = [
        0,
        1,
        CHUNK_SIZE - 1,
        CHUNK_SIZE,
        CHUNK_SIZE + 1,
        3 * CHUNK_SIZE,
    ]
    .map(|length| {
        let object = descriptor(length);
        let hashes: Vec<String> = object
            .chunk_hashes
            .concatenated()
            .chunks(32)
            .map(hex)
            .collect();
        json!({ "length": length, "hashes": hashes })
    });
    json!({
        "about": "Signed statements and chunk hashes; proto/WIRE.md says what they mean. All bytes are in hexadecimal digits.",
        "seed": hex(&[7; 32]),
        "public_key": hex(&key().public_key().to_bytes()),
        "key_id": hex(&key_id),
        "signing_domain": hex(SIGNING_DOMAIN),
        "statements": [
            good("a master header", Statement::Master(master())),
            good("a track header", Statement::Track(header())),
            good("the end of a track", Statement::Track(TrackHeader { end_sequence: Some(50), ..header() })),
            good("a segment", Statement::Object(descriptor(CHUNK_SIZE + 1))),
            good("an empty object", Statement::Object(Descriptor { byte_range: None, ..descriptor(0) })),
            good("an init section", Statement::Object(Descriptor {
                key: ObjectKey::init(TrackIndex(0), 1, 40),
                lines: Vec::new(),
                init_sequence: None,
                ..descriptor(700)
            })),
            vector("a changed payload", &flipped(&payload, 9), &signature, &key_id),
            vector("a changed signature", &payload, &flipped(&signature, 3), &key_id),
            vector("a short signature", &payload, &signature[..63], &key_id),
            vector("another key", &payload, &signature, &flipped(&key_id, 0)),
            vector("a short key id", &payload, &signature, &key_id[..7]),
            raw("signed, but empty", &[]),
            raw("signed, but no protobuf", &[0xff; 12]),
            raw("signed, but of an unknown kind", &[0x7a, 0x00]),
            raw("signed, but an object without a key", &[0x1a, 0x00]),
        ],
        "chunks": {
            "chunk_size": CHUNK_SIZE,
            "bytes": "0, 1, ... 250, 0, 1, ...",
            "objects": chunks,
        },
    })
}

#[test]
fn vectors_are_what_this_crate_makes() {
    let made = make_vectors();
    if std::env::var_os("ESPALIER_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
        std::fs::write(VECTORS, text).expect("the vectors' file");
    }
    let text = std::fs::read_to_string(VECTORS).expect("proto/vectors/statements.json");
    let stored: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        stored, made,
        "run with ESPALIER_WRITE_VECTORS=1 if the format changed on purpose"
    );
}

/// Runs the vectors as another implementation would: from the file alone.
#[test]
fn vectors_hold() {
    let text = std::fs::read_to_string(VECTORS).expect("proto/vectors/statements.json");
    let vectors: Value = serde_json::from_str(&text).expect("JSON");
    let trusted =
        TrustedKeys::from_encoded([unhex(&vectors["public_key"]).as_slice()]).expect("a key");
    let statements = vectors["statements"].as_array().expect("statements");
    let results: Vec<&str> = statements
        .iter()
        .filter_map(|s| s["result"].as_str())
        .collect();
    for expected in [
        "accepted",
        "signature",
        "untrusted_key",
        "encoding",
        "invalid",
    ] {
        assert!(results.contains(&expected), "no vector is {expected}");
    }
    for vector in statements {
        let read = SignedStatement::from_parts(
            unhex(&vector["payload"]).into(),
            &unhex(&vector["signature"]),
            &unhex(&vector["key_id"]),
            &trusted,
        );
        assert_eq!(
            read.is_ok(),
            vector["result"] == "accepted",
            "{}",
            vector["name"]
        );
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SignedStatement::decode(bytes.clone().into(), &trusted()).is_err());
            // Nor do bytes that the key signed; what is accepted of them is kept exactly.
            let key_id = key().public_key().id().0;
            let read = SignedStatement::from_parts(bytes.clone().into(), &sign_raw(&bytes), &key_id, &trusted());
            prop_assert!(read.is_err() || read.is_ok_and(|read| read.payload() == &bytes));
        }
    }
}
