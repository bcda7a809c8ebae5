//! Runs `proto/vectors/frames.json`, which another implementation wrote down by hand.

use bytes::Bytes;
use espalier_media::{ChunkIndex, ObjectKey, ObjectKind, TrackIndex};
use espalier_peer_core::frame::{
    ChunkRun, Cursor, DataHeader, Frame, Hello, Ping, StatementPart, Subscribe,
};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../proto/vectors/frames.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).expect("JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().expect("a list")
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().expect("a text").to_owned()
}

fn number<N: TryFrom<u64>>(value: &Value, name: &str) -> N {
    let number = value[name].as_u64().expect("a number");
    N::try_from(number).ok().expect("in range")
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn message(vector: &Value) -> Bytes {
    let mut bytes = unhex(&text(vector, "hex"));
    if let Some(append) = vector.get("append") {
        let byte = unhex(&text(append, "byte"))[0];
        bytes.resize(bytes.len() + number::<usize>(append, "count"), byte);
    }
    bytes.into()
}

fn object(value: &Value) -> ObjectKey {
    ObjectKey {
        track: TrackIndex(number(value, "track")),
        epoch: number(value, "epoch"),
        kind: match value["kind"].as_str() {
            Some("segment") => ObjectKind::Segment,
            Some("init") => ObjectKind::Init,
            Some("part") => ObjectKind::Part,
            other => panic!("object kind {other:?}"),
        },
        sequence: number(value, "sequence"),
        part: number(value, "part"),
    }
}

fn run(range: &Value) -> ChunkRun {
    let value = |i: usize| {
        range[i]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .expect("a number")
    };
    ChunkRun {
        first: ChunkIndex(value(0)),
        count: value(1),
    }
}

fn frame(value: &Value) -> Frame {
    match text(value, "type").as_str() {
        "hello" => Frame::Hello(Hello {
            min_version: number(value, "min_version"),
            max_version: number(value, "max_version"),
            peer: text(value, "peer").parse().expect("a peer"),
            channel: text(value, "channel"),
        }),
        "statement" => Frame::Statement(StatementPart {
            offset: number(value, "offset"),
            total: number(value, "total"),
            bytes: unhex(&text(value, "bytes")).into(),
        }),
        "data" => {
            let header = DataHeader {
                object: object(&value["object"]),
                chunk: ChunkIndex(number(value, "chunk")),
                offset: number(value, "offset"),
                stripe: number(value, "stripe"),
            };
            Frame::Data(header, unhex(&text(value, "bytes")).into())
        }
        "subscribe" => Frame::Subscribe(Subscribe {
            track: TrackIndex(number(value, "track")),
            stripe: number(value, "stripe"),
            stripes: number(value, "stripes"),
            cursor: value["cursor"].as_object().map(|_| Cursor {
                object: object(&value["cursor"]["object"]),
                chunk: ChunkIndex(number(&value["cursor"], "chunk")),
            }),
        }),
        "unsubscribe" => Frame::Unsubscribe {
            track: TrackIndex(number(value, "track")),
            stripe: number(value, "stripe"),
        },
        "cancel" => Frame::Cancel {
            object: object(&value["object"]),
            first: ChunkIndex(number(value, "first")),
            count: number(value, "count"),
        },
        "request" => Frame::Request {
            object: object(&value["object"]),
            ranges: list(value, "ranges").iter().map(run).collect(),
        },
        "unavailable" => Frame::Unavailable {
            object: object(&value["object"]),
        },
        "upstream" => Frame::Upstream {
            track: TrackIndex(number(value, "track")),
            stripe: number(value, "stripe"),
            repairing: value["repairing"].as_bool().expect("a truth"),
            expected_ms: number(value, "expected_ms"),
        },
        "bye" => Frame::Bye {
            reason: text(value, "reason"),
        },
        other => panic!("frame type {other}"),
    }
}

#[test]
fn valid_frames_say_what_they_should_and_are_written_as_they_were_read() {
    let vectors = vectors();
    for vector in list(&vectors, "valid") {
        let (name, expected) = (text(vector, "name"), frame(&vector["frame"]));
        assert_eq!(
            Frame::decode(message(vector)),
            Ok(expected.clone()),
            "{name}"
        );
        assert_eq!(expected.encode().to_bytes(), message(vector), "{name}");
    }
}

#[test]
fn invalid_frames_are_refused() {
    let vectors = vectors();
    for vector in list(&vectors, "invalid") {
        let decoded = Frame::decode(message(vector));
        assert!(decoded.is_err(), "{}: {decoded:?}", text(vector, "name"));
    }
}

#[test]
fn pings_are_read_and_written() {
    let vectors = vectors();
    for vector in list(&vectors["pings"], "valid") {
        let nonce = u64::from_str_radix(&text(vector, "nonce"), 16).expect("hexadecimal");
        let ping = match text(vector, "kind").as_str() {
            "ping" => Ping::Ping(nonce),
            "pong" => Ping::Pong(nonce),
            other => panic!("ping kind {other}"),
        };
        assert_eq!(Ping::decode(&message(vector)), Ok(ping));
        assert_eq!(ping.encode()[..], message(vector)[..]);
    }
    for vector in list(&vectors["pings"], "invalid") {
        assert!(
            Ping::decode(&message(vector)).is_err(),
            "{}",
            text(vector, "name")
        );
    }
}
