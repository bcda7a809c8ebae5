//! Plays a case: inputs as JSON, commands as lines of text.

use std::time::Duration;

use bytes::Bytes;
use espalier_media::{ObjectKey, ObjectKind, Statement, TrackIndex, TrustedKeys};
use espalier_peer_core::frame::{DataHeader, Frame};
use espalier_peer_core::{
    Assignment, CdnLease, ChildAssignment, Command, EngineConfig, Event, FeedEvent, FetchId,
    FetchUpdate, Generation, LinkDown, LinkSide, PeerId, Publication, RelayEngine, Source,
    TrackAssignment, TrackName, Welcome,
};
use serde_json::{Value, json};

pub(crate) fn unhex(text: &str) -> Bytes {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal");
    (0..text.len())
        .step_by(2)
        .map(digit)
        .collect::<Vec<_>>()
        .into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of an object, from a place on: `(place + 13 × sequence) mod 251`.
pub(crate) fn content(key: &ObjectKey, from: u64, length: u64) -> Bytes {
    let byte = |at: u64| u8::try_from((at + 13 * key.sequence) % 251).expect("small");
    (from..from + length).map(byte).collect::<Vec<_>>().into()
}

fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Segment => "segment",
        ObjectKind::Init => "init",
        ObjectKind::Part => "part",
    }
}

pub(crate) fn key_text(key: &ObjectKey) -> String {
    let (track, epoch, sequence, part) = (key.track.0, key.epoch, key.sequence, key.part);
    format!("{track}/{epoch}/{}/{sequence}/{part}", kind(key.kind))
}

fn key(text: &str) -> ObjectKey {
    let parts: Vec<&str> = text.split('/').collect();
    let number = |i: usize| parts[i].parse::<u32>().expect("a number");
    ObjectKey {
        track: TrackIndex(number(0)),
        epoch: number(1),
        kind: match parts[2] {
            "segment" => ObjectKind::Segment,
            "init" => ObjectKind::Init,
            _ => ObjectKind::Part,
        },
        sequence: parts[3].parse().expect("a number"),
        part: number(4),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn small(value: &Value, name: &str) -> u8 {
    u8::try_from(number(value, name)).expect("small")
}

fn peer(value: &Value) -> PeerId {
    text(value, "peer").parse().expect("a peer")
}

fn source(value: &Value) -> Option<Source> {
    value.as_str().map(|text| match text {
        "cdn" => Source::Cdn,
        peer => Source::Peer(peer.parse().expect("a peer")),
    })
}

fn assignment(value: &Value) -> Assignment {
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    Assignment {
        generation: Generation {
            incarnation: 1,
            term: 1,
            index: number(value, "index"),
        },
        tracks: list("tracks")
            .iter()
            .map(|track| TrackAssignment {
                track: TrackName(text(track, "track").into()),
                stripe: small(track, "stripe"),
                stripes: small(track, "stripes"),
                source: source(&track["source"]),
                standby: source(&track["standby"]),
                make_before_break: track["make_before_break"] == true,
            })
            .collect(),
        children: list("children")
            .iter()
            .map(|child| ChildAssignment {
                track: TrackName(text(child, "track").into()),
                stripe: small(child, "stripe"),
                peer: peer(child),
                standby: child["standby"] == true,
            })
            .collect(),
        cdn_lease: None,
        upload_bps: number(value, "upload_bps"),
    }
}

fn frame(value: &Value) -> Bytes {
    if let Some(frame) = value["hex"].as_str() {
        return unhex(frame);
    }
    let data = &value["data"];
    let (object, offset) = (key(text(data, "object")), number(data, "offset"));
    let chunk = u32::try_from(number(data, "chunk")).expect("small");
    let at = u64::from(chunk) * 61_440 + offset;
    let mut bytes = content(&object, at, number(data, "length")).to_vec();
    if data["corrupt"] == true {
        bytes[0] ^= 1;
    }
    let header = DataHeader {
        object,
        chunk: espalier_media::ChunkIndex(chunk),
        offset: u32::try_from(offset).expect("small"),
        stripe: small(data, "stripe"),
    };
    Frame::Data(header, bytes.into()).encode().to_bytes()
}

fn feed(suite: &Value, event: &Value) -> FeedEvent {
    match text(event, "feed") {
        "opened" => FeedEvent::Opened,
        "caught_up" => FeedEvent::CaughtUp,
        "lost" => FeedEvent::Lost,
        "announce" => FeedEvent::Announce {
            object: key(text(event, "object")),
            uri: text(event, "uri").into(),
            byte_range: None,
        },
        "statement" => {
            FeedEvent::Statement(unhex(text(&suite["statements"], text(event, "statement"))))
        }
        other => panic!("feed event {other}"),
    }
}

fn fetch(event: &Value) -> FetchUpdate {
    match text(event, "update") {
        "started" => FetchUpdate::Started {
            partial: event["partial"] == true,
            length: None,
        },
        "body" => {
            let object = key(text(event, "object"));
            FetchUpdate::Body(content(
                &object,
                number(event, "from"),
                number(event, "length"),
            ))
        }
        "end" => FetchUpdate::End,
        _ => FetchUpdate::Failed {
            status: None,
            reason: "it failed".into(),
        },
    }
}

fn event(suite: &Value, event: &Value) -> Event {
    match text(event, "type") {
        "welcome" => Event::SessionWelcomed(Welcome {
            incarnation: 1,
            keys: TrustedKeys::from_encoded([&unhex(text(suite, "public_key"))[..]])
                .expect("a key"),
        }),
        "assignment" => Event::Assignment(assignment(event)),
        "link_up" => Event::LinkUp { peer: peer(event) },
        "link_failed" => Event::LinkFailed {
            peer: peer(event),
            reason: "no way".into(),
        },
        "link_down" => Event::LinkDown {
            peer: peer(event),
            reason: LinkDown::Lost,
        },
        "frame" => Event::Frame {
            peer: peer(event),
            bytes: frame(event),
        },
        "statement_frame" => {
            let encoded = unhex(text(&suite["statements"], text(event, "statement")));
            let part = espalier_peer_core::frame::StatementPart {
                offset: 0,
                total: u32::try_from(encoded.len()).expect("short"),
                bytes: encoded,
            };
            Event::Frame {
                peer: peer(event),
                bytes: Frame::Statement(part).encode().to_bytes(),
            }
        }
        "ping" => Event::Ping {
            peer: peer(event),
            bytes: unhex(text(event, "hex")),
        },
        "buffered" => Event::Buffered {
            peer: peer(event),
            bytes: number(event, "bytes"),
        },
        "feed" => Event::Feed(feed(suite, event)),
        "fetch" => Event::Fetch {
            id: FetchId(number(event, "id")),
            update: fetch(event),
        },
        "player_wants" => Event::PlayerWants {
            object: key(text(event, "object")),
        },
        "timeout" => Event::Timeout,
        other => panic!("event {other}"),
    }
}

fn shown_source(source: Option<Source>) -> String {
    match source {
        None => "-".into(),
        Some(Source::Cdn) => "cdn".into(),
        Some(Source::Peer(peer)) => peer.to_string(),
    }
}

fn shown_frame(bytes: Bytes) -> String {
    match Frame::decode(bytes.clone()) {
        Ok(Frame::Data(header, data)) => {
            let at = u64::from(header.chunk.0) * 61_440 + u64::from(header.offset);
            let whole = content(&header.object, at, data.len() as u64) == data;
            let (object, chunk) = (key_text(&header.object), header.chunk.0);
            let (offset, stripe, length) = (header.offset, header.stripe, data.len());
            format!("data {object} {chunk} {offset} {stripe} {length} {whole}")
        }
        Ok(_) | Err(_) => hex(&bytes),
    }
}

fn shown_publication(publication: &Publication) -> String {
    match publication {
        Publication::Header(header) => match &**header {
            Statement::Master(master) => format!("header master {}", master.revision),
            Statement::Track(header) => {
                format!("header track {} {}", header.track.0, header.from_sequence)
            }
            Statement::Object(_) => panic!("no header"),
        },
        Publication::Listed(listed) => {
            let descriptor = listed.as_object().expect("a descriptor");
            format!("listed {}", key_text(&descriptor.key))
        }
        Publication::Chunk {
            object,
            index,
            bytes,
        } => {
            let at = u64::from(index.0) * 61_440;
            let whole = content(object, at, bytes.len() as u64) == *bytes;
            format!(
                "chunk {} {} {} {whole}",
                key_text(object),
                index.0,
                bytes.len()
            )
        }
        Publication::Complete { object, at, from } => {
            let (parent, standby, cdn) = (from.parent_bytes, from.standby_bytes, from.cdn_bytes);
            let object = key_text(object);
            format!(
                "complete {object} {} {parent} {standby} {cdn}",
                at.as_millis()
            )
        }
        Publication::Unverified { object, body, .. } => {
            let length: usize = body.iter().map(Bytes::len).sum();
            format!("unverified {} {length}", key_text(object))
        }
        Publication::Evicted { object } => format!("evicted {}", key_text(object)),
    }
}

fn shown(command: Command) -> String {
    match command {
        Command::Connect { peer, side } => match side {
            LinkSide::Offer => format!("connect {peer} offer"),
            LinkSide::Await => format!("connect {peer} await"),
        },
        Command::Disconnect { peer } => format!("disconnect {peer}"),
        Command::SendFrame { peer, frame } => {
            format!("frame {peer} {}", shown_frame(frame.to_bytes()))
        }
        Command::SendPing { peer, bytes } => format!("ping {peer} {}", hex(&bytes)),
        Command::Fetch(request) => {
            let range = request.range;
            let range = range.map_or("-".into(), |r| format!("{}+{}", r.offset, r.length));
            let (id, object) = (request.id.0, key_text(&request.object));
            format!("fetch {id} {object} {} {range}", request.uri)
        }
        Command::CancelFetch { id } => format!("cancel_fetch {}", id.0),
        Command::FetchPlaylist { .. } => panic!("no case is about a bypass"),
        Command::OpenFeed => "open_feed".into(),
        Command::CloseFeed => "close_feed".into(),
        Command::Publish(publication) => format!("publish {}", shown_publication(&publication)),
        Command::Acknowledge { generation } => format!("acknowledge {}", generation.index),
        Command::ReportLink { peer, state, .. } => {
            format!("link {peer} {}", format!("{state:?}").to_lowercase())
        }
        Command::ReportSource(report) => {
            let (track, source) = (report.track, shown_source(report.source));
            let state = format!("{:?}", report.state).to_lowercase();
            format!("source {track} {} {source} {state}", report.stripe)
        }
        Command::ReportTracksWanted { tracks } => format!("wants {tracks:?}"),
    }
}

/// What the engine does at each step of a case.
pub(crate) fn play(suite: &Value, case: &Value) -> Vec<Vec<String>> {
    let mut config = EngineConfig::new(text(case, "peer").parse().expect("a peer"), "demo");
    config.ring_bytes = 32 << 20;
    config.prefetch_bytes = 16 << 20;
    config.default_lease = CdnLease {
        rate_bps: 8_000_000,
        burst_bytes: 8 << 20,
        lifetime: Duration::MAX,
    };
    let mut engine = RelayEngine::new(config);
    let steps = case["steps"].as_array().expect("steps");
    let step = |step: &Value| {
        let now = Duration::from_millis(number(step, "at"));
        engine.handle(event(suite, &step["event"]), now);
        core::iter::from_fn(|| engine.poll_command())
            .map(shown)
            .collect()
    };
    steps.iter().map(step).collect()
}

/// Writes into each step what the engine does.
pub(crate) fn fill(mut suite: Value) -> Value {
    let cases = suite["cases"].as_array().expect("cases").clone();
    let filled = cases.into_iter().map(|mut case| {
        let outputs = play(&suite, &case);
        let steps = case["steps"].as_array_mut().expect("steps");
        for (step, outputs) in steps.iter_mut().zip(outputs) {
            step["expect"] = json!(outputs);
        }
        case
    });
    let filled: Vec<Value> = filled.collect();
    suite["cases"] = json!(filled);
    suite
}
