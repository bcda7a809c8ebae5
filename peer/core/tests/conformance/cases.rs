//! The cases: inputs only. What the engine is expected to do with them is in the suite's file.

use std::time::Duration;

use espalier_media::{
    ByteRange, ChunkIndex, Descriptor, MasterHeader, ObjectHasher, ObjectKey, SignedStatement,
    Statement, StatementKey, Track, TrackHeader, TrackIndex, TrackKind,
};
use espalier_peer_core::PeerId;
use espalier_peer_core::frame::{ChunkRun, Cursor, Frame, Hello, Subscribe};
use serde_json::{Map, Value, json};

use super::replay::{content, hex, key_text};

const SELF: u64 = 0x10;
const PARENT: u64 = 0x01;
const STANDBY: u64 = 0x02;
const CHILD: u64 = 0x20;
const SECOND: u64 = 0x21;
/// Three chunks: two whole ones and a shorter one.
const LENGTH: u64 = 150_000;
const CHUNK: u64 = 61_440;
const MBIT: u64 = 1_000_000;

fn id(peer: u64) -> String {
    PeerId(peer).to_string()
}

fn segment(sequence: u64) -> ObjectKey {
    ObjectKey::segment(TrackIndex(0), 0, sequence)
}

fn sign(statement: Statement) -> String {
    let key = StatementKey::from_seed(&[7; 32]);
    let signed = SignedStatement::sign(statement, &key).expect("a statement");
    hex(signed.encoded())
}

fn descriptor(key: ObjectKey, byte_range: Option<ByteRange>) -> Statement {
    let mut hasher = ObjectHasher::new();
    hasher.push(&content(&key, 0, LENGTH)).expect("short");
    let hashed = hasher.finish();
    Statement::Object(Descriptor {
        key,
        length: hashed.length,
        chunk_hashes: hashed.chunk_hashes,
        duration: Duration::from_secs(2),
        program_date_time_ms: None,
        lines: vec!["#EXTINF:2,".into()],
        key_lines: Vec::new(),
        init_sequence: None,
        discontinuity_sequence: 0,
        uri: format!("http://cdn/{}.ts", key.sequence),
        byte_range,
    })
}

fn statements() -> Value {
    let mut all = Map::new();
    let master = Statement::Master(MasterHeader {
        revision: 1,
        tracks: vec![Track {
            index: TrackIndex(0),
            name: "main".into(),
            uri: "http://cdn/main.m3u8".into(),
            bandwidth_bps: 0,
            kind: TrackKind::Variant,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        }],
        playlist: String::new(),
    });
    let header = Statement::Track(TrackHeader {
        track: TrackIndex(0),
        epoch: 0,
        from_sequence: 0,
        target_duration: Duration::from_secs(2),
        lines: vec!["#EXT-X-VERSION:3".into()],
        window_segments: 6,
        end_sequence: None,
    });
    all.insert("master".into(), sign(master).into());
    all.insert("header".into(), sign(header).into());
    for sequence in 1..=14 {
        let statement = sign(descriptor(segment(sequence), None));
        all.insert(format!("s{sequence}"), statement.into());
    }
    let mut forged = sign(descriptor(segment(14), None));
    // The last digit belongs to the key's id, those before it to the signature.
    forged.replace_range(forged.len() - 24..forged.len() - 22, "00");
    all.insert("forged".into(), forged.into());
    all.into()
}

/// A case in the making.
struct Script {
    name: &'static str,
    at: u64,
    index: u64,
    steps: Vec<Value>,
}

impl Script {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            at: 0,
            index: 0,
            steps: Vec::new(),
        }
    }

    fn step(&mut self, event: Value) -> &mut Self {
        self.steps.push(json!({ "at": self.at, "event": event }));
        self
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.at += ms;
        self
    }

    /// Lets time pass in steps of 50 ms.
    fn idle(&mut self, ms: u64) -> &mut Self {
        for _ in 0..ms / 50 {
            self.wait(50).step(json!({ "type": "timeout" }));
        }
        self
    }

    /// The same, while a neighbour says that it lives.
    fn idle_with(&mut self, peer: u64, ms: u64) -> &mut Self {
        for turn in 0..ms / 250 {
            self.wait(250);
            let hex = format!("10{turn:016x}");
            self.step(json!({ "type": "ping", "peer": id(peer), "hex": hex }));
        }
        self
    }

    fn tracks(&mut self, tracks: Value, children: Value, upload: u64) -> &mut Self {
        self.index += 1;
        let index = self.index;
        self.step(
            json!({ "type": "assignment", "index": index, "upload_bps": upload,
            "tracks": tracks, "children": children }),
        )
    }

    fn assign(&mut self, source: Value, standby: Value, children: &[u64]) -> &mut Self {
        let track = json!({ "track": "main", "stripe": 0, "stripes": 1, "source": source,
            "standby": standby, "make_before_break": true });
        let child = |peer: &u64| json!({ "track": "main", "stripe": 0, "peer": id(*peer), "standby": false });
        let children: Vec<Value> = children.iter().map(child).collect();
        self.tracks(json!([track]), json!(children), 20 * MBIT)
    }

    fn frame(&mut self, peer: u64, frame: &Frame) -> &mut Self {
        let hex = hex(&frame.encode().to_bytes());
        self.step(json!({ "type": "frame", "peer": id(peer), "hex": hex }))
    }

    fn statement(&mut self, peer: u64, name: &str) -> &mut Self {
        self.step(json!({ "type": "statement_frame", "peer": id(peer), "statement": name }))
    }

    fn data(&mut self, peer: u64, sequence: u64, chunk: u64) -> &mut Self {
        let length = CHUNK.min(LENGTH - chunk * CHUNK);
        self.fragment(peer, sequence, chunk, 0, length, false)
    }

    fn fragment(
        &mut self,
        peer: u64,
        sequence: u64,
        chunk: u64,
        offset: u64,
        length: u64,
        corrupt: bool,
    ) -> &mut Self {
        let object = key_text(&segment(sequence));
        self.step(json!({ "type": "frame", "peer": id(peer), "data": { "object": object,
            "chunk": chunk, "offset": offset, "length": length, "stripe": 0, "corrupt": corrupt } }))
    }

    /// A statement and all the data of a segment.
    fn whole(&mut self, peer: u64, sequence: u64) -> &mut Self {
        self.statement(peer, &format!("s{sequence}"));
        for chunk in 0..3 {
            self.wait(20).data(peer, sequence, chunk);
        }
        self
    }

    fn feed(&mut self, what: &str) -> &mut Self {
        self.step(json!({ "type": "feed", "feed": what }))
    }

    fn said(&mut self, statement: &str) -> &mut Self {
        self.step(json!({ "type": "feed", "feed": "statement", "statement": statement }))
    }

    fn fetch(&mut self, fetch: u64, update: &str) -> &mut Self {
        self.step(json!({ "type": "fetch", "id": fetch, "update": update }))
    }

    fn started(&mut self, fetch: u64, partial: bool) -> &mut Self {
        self.step(json!({ "type": "fetch", "id": fetch, "update": "started", "partial": partial }))
    }

    fn body(&mut self, fetch: u64, sequence: u64, from: u64, length: u64) -> &mut Self {
        let object = key_text(&segment(sequence));
        self.step(
            json!({ "type": "fetch", "id": fetch, "update": "body", "object": object,
            "from": from, "length": length }),
        )
    }

    fn link(&mut self, peer: u64) -> &mut Self {
        self.step(json!({ "type": "link_up", "peer": id(peer) }));
        self.frame(
            peer,
            &Frame::Hello(Hello {
                min_version: 1,
                max_version: 1,
                peer: PeerId(peer),
                channel: "demo".into(),
            }),
        )
    }

    fn subscribed(
        &mut self,
        peer: u64,
        cursor: Option<(u64, u32)>,
        stripe: u8,
        stripes: u8,
    ) -> &mut Self {
        let cursor = cursor.map(|(sequence, chunk)| Cursor {
            object: segment(sequence),
            chunk: espalier_media::ChunkIndex(chunk),
        });
        let track = TrackIndex(0);
        self.frame(
            peer,
            &Frame::Subscribe(Subscribe {
                track,
                stripe,
                stripes,
                cursor,
            }),
        )
    }

    /// A peer under a parent that plays two segments from it.
    fn under_parent(name: &'static str, standby: Value, children: &[u64]) -> Self {
        let mut script = Self::new(name);
        script.step(json!({ "type": "welcome" }));
        script.assign(json!(id(PARENT)), standby, children);
        script.wait(100).link(PARENT);
        for statement in ["master", "header", "s1"] {
            script.statement(PARENT, statement);
        }
        for chunk in 0..3 {
            script.wait(20).data(PARENT, 1, chunk);
        }
        script.wait(1_000).whole(PARENT, 2);
        script
    }

    /// A root that has begun.
    fn root(name: &'static str, children: &[u64]) -> Self {
        let mut script = Self::new(name);
        script.step(json!({ "type": "welcome" }));
        script.assign(json!("cdn"), Value::Null, children);
        script.wait(10).feed("opened");
        for statement in ["master", "header", "s1", "s2"] {
            script.said(statement);
        }
        script.feed("caught_up");
        script.wait(20).started(1, false).body(1, 2, 0, 100_000);
        script.wait(20).body(1, 2, 100_000, 50_000).fetch(1, "end");
        script
    }

    fn done(&self) -> Value {
        json!({ "name": self.name, "peer": id(SELF), "steps": self.steps })
    }
}

pub(crate) fn all() -> Value {
    let cases = [
        cut_through(),
        corrupt_chunk(),
        forged_statement(),
        fragments(),
        refused_object(),
        standby_that_lacks_the_same(),
        silent_source_with_standby(),
        silent_source_without_standby(),
        make_before_break(),
        back_pressure(),
        late_joiner(),
        stripes(),
        announced_before_signed(),
        mismatch(),
        ranges_ignored(),
        requests_and_cancels(),
        parent_repairs(),
        player_seeks_back(),
        violations(),
    ];
    json!({
        "about": "What a relay engine does: inputs, and the commands that each brings, as lines. Normative text: WIRE.md. \
                  The byte at a place of an object is (place + 13 x sequence) mod 251.",
        "public_key": hex(&StatementKey::from_seed(&[7; 32]).public_key().to_bytes()),
        "statements": statements(),
        "cases": cases,
    })
}

fn cut_through() -> Value {
    let name = "a chunk goes to the child the moment that it is whole";
    let mut script = Script::under_parent(name, Value::Null, &[CHILD]);
    script.wait(50).link(CHILD).subscribed(CHILD, None, 0, 1);
    script.wait(1_000).whole(PARENT, 3);
    script.step(json!({ "type": "buffered", "peer": id(CHILD), "bytes": 0 }));
    script.wait(1_800).whole(PARENT, 4);
    script.step(json!({ "type": "buffered", "peer": id(CHILD), "bytes": 0 }));
    script.done()
}

fn corrupt_chunk() -> Value {
    let name = "a corrupted chunk ends the link, and the CDN takes over";
    let mut script = Script::under_parent(name, Value::Null, &[CHILD]);
    script.wait(50).link(CHILD).subscribed(CHILD, None, 0, 1);
    script.wait(900).statement(PARENT, "s3").data(PARENT, 3, 0);
    script.wait(20).fragment(PARENT, 3, 1, 0, CHUNK, true);
    script.idle(300).feed("opened").said("s3").feed("caught_up");
    script.started(1, true).body(1, 3, CHUNK, LENGTH - CHUNK);
    script.fetch(1, "end").idle(500);
    script.done()
}

fn forged_statement() -> Value {
    let name = "a statement whose signature does not match ends the link";
    let mut script = Script::under_parent(name, json!(id(STANDBY)), &[]);
    script.link(STANDBY).wait(100).statement(PARENT, "forged");
    script.idle(500);
    script.done()
}

fn fragments() -> Value {
    let name = "fragments are put together, and dropped where they do not follow each other";
    let mut script = Script::under_parent(name, Value::Null, &[]);
    script.wait(900).statement(PARENT, "s3");
    for offset in [0, 16_384, 32_768, 49_152] {
        script.fragment(PARENT, 3, 0, offset, (CHUNK - offset).min(16_384), false);
    }
    script.fragment(PARENT, 3, 1, 0, 16_384, false);
    script.fragment(PARENT, 3, 1, 32_768, 16_384, false);
    script.fragment(PARENT, 3, 1, 49_152, 12_288, false);
    script.data(PARENT, 3, 1).data(PARENT, 3, 2);
    script.done()
}

fn refused_object() -> Value {
    let name = "what the parent does not have is asked of the standby, then of the CDN";
    let mut script = Script::under_parent(name, json!(id(STANDBY)), &[]);
    script
        .link(STANDBY)
        .wait(900)
        .statement(PARENT, "s3")
        .data(PARENT, 3, 0);
    script.frame(PARENT, &Frame::Unavailable { object: segment(3) });
    script.idle(100);
    script.frame(STANDBY, &Frame::Unavailable { object: segment(3) });
    script
        .idle(100)
        .started(1, true)
        .body(1, 3, CHUNK, 88_560)
        .fetch(1, "end");
    script.idle(100);
    script.done()
}

fn standby_that_lacks_the_same() -> Value {
    let name = "a standby that lacks the same is told so, and the parent is to bring it after all";
    let mut script = Script::under_parent(name, json!(id(STANDBY)), &[]);
    script
        .link(STANDBY)
        .wait(900)
        .statement(PARENT, "s3")
        .data(PARENT, 3, 0);
    for _ in 0..3 {
        script.idle_with(PARENT, 250).idle_with(STANDBY, 250);
    }
    let ranges = vec![ChunkRun {
        first: ChunkIndex(1),
        count: 1,
    }];
    let object = segment(3);
    script.frame(STANDBY, &Frame::Request { object, ranges });
    script.frame(STANDBY, &Frame::Unavailable { object });
    script.data(PARENT, 3, 1).idle(100);
    script.done()
}

fn silent_source_with_standby() -> Value {
    let name = "a silent parent is helped out by the standby, and left when it is dead";
    let mut script = Script::under_parent(name, json!(id(STANDBY)), &[CHILD]);
    script.link(STANDBY).statement(STANDBY, "master");
    script.link(CHILD).subscribed(CHILD, None, 0, 1);
    script.idle_with(STANDBY, 1_500);
    script.statement(STANDBY, "header").whole(STANDBY, 3);
    script.idle_with(STANDBY, 3_500);
    script.whole(STANDBY, 4).idle_with(STANDBY, 500);
    script.done()
}

fn silent_source_without_standby() -> Value {
    let name = "a silent parent without a standby: children are told, the CDN serves by range";
    let mut script = Script::under_parent(name, Value::Null, &[CHILD]);
    script.link(CHILD).subscribed(CHILD, None, 0, 1);
    script.wait(800).statement(PARENT, "s3").data(PARENT, 3, 0);
    script.idle_with(CHILD, 1_250);
    script
        .started(1, true)
        .body(1, 3, CHUNK, 88_560)
        .fetch(1, "end");
    script
        .feed("opened")
        .said("header")
        .said("s3")
        .feed("caught_up");
    script
        .idle_with(CHILD, 500)
        .said("s4")
        .idle_with(CHILD, 500);
    script.done()
}

fn make_before_break() -> Value {
    let name = "the parent before is kept until data flows from the new one";
    let mut script = Script::under_parent(name, Value::Null, &[]);
    script
        .wait(100)
        .assign(json!(id(STANDBY)), Value::Null, &[]);
    script.wait(200).whole(PARENT, 3);
    script
        .wait(100)
        .link(STANDBY)
        .statement(STANDBY, "master")
        .statement(STANDBY, "header");
    script
        .wait(1_500)
        .statement(PARENT, "s4")
        .data(PARENT, 4, 0);
    script.wait(20).statement(STANDBY, "s4").data(STANDBY, 4, 1);
    script.idle(100).data(STANDBY, 4, 2).idle(200);
    // An older assignment than the one in force changes nothing.
    script.step(
        json!({ "type": "assignment", "index": 1, "upload_bps": 1, "tracks": [], "children": [] }),
    );
    script.done()
}

fn back_pressure() -> Value {
    let name = "a child that takes nothing gets no more than its link holds, and hinders nobody";
    let mut script = Script::under_parent(name, Value::Null, &[CHILD, SECOND]);
    script.link(CHILD).link(SECOND);
    script
        .subscribed(CHILD, Some((1, 0)), 0, 1)
        .subscribed(SECOND, Some((1, 0)), 0, 1);
    for _ in 0..10 {
        script
            .idle(50)
            .step(json!({ "type": "buffered", "peer": id(SECOND), "bytes": 0 }));
    }
    script.wait(100).whole(PARENT, 3);
    script
        .step(json!({ "type": "buffered", "peer": id(CHILD), "bytes": 40_000 }))
        .idle(100);
    script.done()
}

fn late_joiner() -> Value {
    let name = "a late joiner begins at the cursor; before the window: unavailable, then on";
    let mut script = Script::root(name, &[CHILD]);
    script
        .said("s3")
        .started(2, false)
        .body(2, 3, 0, LENGTH)
        .fetch(2, "end");
    script
        .link(CHILD)
        .subscribed(CHILD, Some((1, 1)), 0, 1)
        .idle(200);
    script
        .step(json!({ "type": "buffered", "peer": id(CHILD), "bytes": 0 }))
        .idle(200);
    script.subscribed(CHILD, Some((4, 0)), 0, 1);
    script
        .said("s4")
        .started(3, false)
        .body(3, 4, 0, LENGTH)
        .fetch(3, "end")
        .idle(100);
    script.frame(
        CHILD,
        &Frame::Unsubscribe {
            track: TrackIndex(0),
            stripe: 0,
        },
    );
    script
        .said("s5")
        .started(4, false)
        .body(4, 5, 0, LENGTH)
        .fetch(4, "end")
        .idle(100);
    script.done()
}

fn stripes() -> Value {
    let name = "two stripes from two parents, each with its own fate";
    let mut script = Script::new(name);
    script.step(json!({ "type": "welcome" }));
    let stripe = |number: u64, source: Value| {
        json!({ "track": "main", "stripe": number, "stripes": 2,
        "source": source, "standby": null, "make_before_break": true })
    };
    let both = json!([stripe(0, json!(id(PARENT))), stripe(1, json!(id(STANDBY)))]);
    let child = json!([{ "track": "main", "stripe": 1, "peer": id(CHILD), "standby": false }]);
    script.tracks(both, child.clone(), 5 * MBIT);
    script
        .wait(50)
        .link(PARENT)
        .link(STANDBY)
        .link(CHILD)
        .subscribed(CHILD, None, 1, 2);
    for statement in ["master", "header", "s1"] {
        script
            .statement(PARENT, statement)
            .statement(STANDBY, statement);
    }
    script
        .data(PARENT, 1, 0)
        .data(STANDBY, 1, 1)
        .data(PARENT, 1, 2)
        .idle(200);
    script
        .wait(1_500)
        .statement(PARENT, "s2")
        .data(PARENT, 2, 0)
        .data(PARENT, 2, 2);
    script.idle_with(PARENT, 1_000).idle_with(PARENT, 1_000);
    let one = json!([stripe(0, json!(id(PARENT))), stripe(1, json!("cdn"))]);
    script.tracks(one, child, 5 * MBIT).idle(100);
    script.done()
}

fn announced_before_signed() -> Value {
    let name = "a root reads what is announced, and relays it when it is signed";
    let mut script = Script::root(name, &[CHILD]);
    script
        .link(CHILD)
        .subscribed(CHILD, Some((3, 0)), 0, 1)
        .wait(1_500);
    let object = key_text(&segment(3));
    script.step(
        json!({ "type": "feed", "feed": "announce", "object": object, "uri": "http://cdn/3.ts" }),
    );
    script.wait(10).started(2, false).body(2, 3, 0, 70_000);
    script
        .wait(10)
        .said("s3")
        .idle(50)
        .body(2, 3, 70_000, 80_000)
        .fetch(2, "end")
        .idle(100);
    script.done()
}

fn mismatch() -> Value {
    let name = "other bytes at the CDN than were signed are played and relayed to nobody";
    let mut script = Script::root(name, &[CHILD]);
    script
        .link(CHILD)
        .subscribed(CHILD, Some((3, 0)), 0, 1)
        .wait(1_500);
    // The bytes of another segment.
    script
        .said("s3")
        .started(2, false)
        .body(2, 4, 0, LENGTH)
        .idle(50);
    script
        .started(3, false)
        .body(3, 4, 0, LENGTH)
        .fetch(3, "end")
        .idle(200);
    script.done()
}

fn ranges_ignored() -> Value {
    let name = "an answer with the whole resource is used whole";
    let mut script = Script::under_parent(name, Value::Null, &[]);
    script.wait(900).statement(PARENT, "s3").data(PARENT, 3, 0);
    script.frame(PARENT, &Frame::Unavailable { object: segment(3) });
    script
        .idle(50)
        .started(1, false)
        .body(1, 3, 0, LENGTH)
        .fetch(1, "end")
        .idle(100);
    script.fetch(1, "failed").idle(100);
    script.done()
}

fn requests_and_cancels() -> Value {
    let name = "what is asked for by name, and what is cancelled";
    let mut script = Script::under_parent(name, Value::Null, &[CHILD, SECOND]);
    script.link(CHILD).link(SECOND);
    let run = |first, count| ChunkRun {
        first: espalier_media::ChunkIndex(first),
        count,
    };
    let ranges = vec![run(0, 1), run(2, 1)];
    script
        .frame(
            CHILD,
            &Frame::Request {
                object: segment(2),
                ranges,
            },
        )
        .idle(50);
    script.frame(
        CHILD,
        &Frame::Request {
            object: segment(9),
            ranges: vec![run(0, 1)],
        },
    );
    script.step(json!({ "type": "buffered", "peer": id(CHILD), "bytes": 0 }));
    script.subscribed(SECOND, Some((3, 0)), 0, 1).wait(700);
    let first = espalier_media::ChunkIndex(1);
    script.frame(
        SECOND,
        &Frame::Cancel {
            object: segment(3),
            first,
            count: 1,
        },
    );
    script.whole(PARENT, 3).idle(100);
    script.done()
}

fn parent_repairs() -> Value {
    let name = "a parent that repairs its source is waited for, and its children wait too";
    let mut script = Script::under_parent(name, json!(id(STANDBY)), &[CHILD]);
    script
        .link(STANDBY)
        .link(CHILD)
        .subscribed(CHILD, None, 0, 1)
        .wait(500);
    let upstream = |repairing, expected_ms| Frame::Upstream {
        track: TrackIndex(0),
        stripe: 0,
        repairing,
        expected_ms,
    };
    script.frame(PARENT, &upstream(true, 3_000));
    script
        .idle_with(PARENT, 1_000)
        .frame(PARENT, &upstream(false, 0));
    script.whole(PARENT, 3).frame(PARENT, &upstream(true, 500));
    script.idle_with(PARENT, 1_000);
    script.done()
}

fn player_seeks_back() -> Value {
    let name = "what was listed and is not held is fetched when the player reads it";
    let mut script = Script::root(name, &[]);
    script
        .wait(500)
        .step(json!({ "type": "player_wants", "object": key_text(&segment(1)) }));
    script
        .started(2, false)
        .body(2, 1, 0, LENGTH)
        .fetch(2, "end")
        .idle(100);
    script.said("s3").fetch(3, "failed").idle(500);
    script.done()
}

fn violations() -> Value {
    let name = "who breaks the protocol is left for a minute, whatever is assigned";
    let mut script = Script::new(name);
    script.step(json!({ "type": "welcome" }));
    script.assign(json!(id(PARENT)), json!(id(STANDBY)), &[CHILD]);
    script
        .wait(10)
        .step(json!({ "type": "link_up", "peer": id(PARENT) }));
    script.frame(PARENT, &Frame::Unavailable { object: segment(1) });
    script
        .link(STANDBY)
        .step(json!({ "type": "frame", "peer": id(STANDBY), "hex": "ff" }));
    script.step(json!({ "type": "link_failed", "peer": id(CHILD) }));
    script.link(CHILD);
    script.frame(
        CHILD,
        &Frame::Bye {
            reason: "tired".into(),
        },
    );
    script
        .link(CHILD)
        .step(json!({ "type": "link_down", "peer": id(CHILD) }))
        .idle(100);
    script.wait(60_000).step(json!({ "type": "timeout" }));
    script.done()
}
