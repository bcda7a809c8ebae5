//! The local server against a store that the test fills and an engine that only remembers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use espalier_media::{
    CHUNK_SIZE, ChunkIndex, Descriptor, MasterHeader, ObjectHasher, ObjectKey, Statement, Track,
    TrackHeader, TrackIndex, TrackKind,
};
use espalier_peer_core::{
    EngineConfig, Event, PeerId, Provenance, Publication, RelayEngine, Role, TrackName,
};
use reqwest::{Client, Method, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Served, router};
use crate::engine_task::EngineHandle;
use crate::milestones::Milestones;
use crate::stats::Identity;
use crate::store::{Ledger, Store};

const TRACK: TrackIndex = TrackIndex(0);
const DEADLINE: Duration = Duration::from_secs(20);

/// A server, its store, and what it tells the engine.
struct Scene {
    store: Arc<Store>,
    events: mpsc::Receiver<Event>,
    base: String,
    http: Client,
}

impl Scene {
    async fn new() -> Self {
        Self::with(true, Duration::from_secs(10)).await
    }

    async fn with(player: bool, first_wait: Duration) -> Self {
        let store = Arc::new(Store::new(Ledger::start()));
        let (tell, events) = mpsc::channel(64);
        let (queries, mut queried) = mpsc::channel::<oneshot::Sender<_>>(8);
        tokio::spawn(async move {
            let engine = RelayEngine::new(EngineConfig::new(PeerId(7), "demo"));
            while let Some(answer) = queried.recv().await {
                drop(answer.send(engine.snapshot(Duration::ZERO)));
            }
        });
        let identity = Identity {
            peer: PeerId(7).to_string(),
            role: Role::Contributor,
            started: Instant::now(),
            milestones: Arc::new(Milestones::default()),
        };
        let handle = EngineHandle::new(tell, queries);
        let mut served = Served::new("demo".to_owned(), Arc::clone(&store), handle, identity);
        served.first_wait = first_wait;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(Arc::new(served), player)).await });
        Self {
            store,
            events,
            base,
            http: Client::new(),
        }
    }

    fn headers(&self) {
        let track = Track {
            index: TRACK,
            name: "v0".to_owned(),
            uri: "http://origin/v0.m3u8".to_owned(),
            bandwidth_bps: 1,
            kind: TrackKind::Variant,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        };
        let other = Track {
            index: TrackIndex(1),
            name: "v1".to_owned(),
            ..track.clone()
        };
        let playlist = String::new();
        let master = MasterHeader {
            revision: 1,
            tracks: vec![track, other],
            playlist,
        };
        self.store
            .apply(Publication::Header(Arc::new(Statement::Master(master))));
        let header = TrackHeader {
            track: TRACK,
            epoch: 0,
            from_sequence: 0,
            target_duration: Duration::from_millis(400),
            lines: vec![
                "#EXT-X-VERSION:3".to_owned(),
                "#EXT-X-TARGETDURATION:1".to_owned(),
            ],
            window_segments: 3,
            end_sequence: None,
        };
        self.store
            .apply(Publication::Header(Arc::new(Statement::Track(header))));
    }

    /// Lists a segment of which nothing is here yet, and returns what its chunks will be.
    fn list(&self, sequence: u64, length: usize) -> Vec<Bytes> {
        let body = bytes_of(sequence, length);
        let statement = Statement::Object(descriptor(sequence, &body));
        self.store.apply(Publication::Listed(Arc::new(statement)));
        body.chunks(CHUNK_SIZE)
            .map(Bytes::copy_from_slice)
            .collect()
    }

    fn chunk(&self, sequence: u64, index: u32, bytes: &Bytes) {
        let object = ObjectKey::segment(TRACK, 0, sequence);
        let (index, bytes) = (ChunkIndex(index), bytes.clone());
        self.store.apply(Publication::Chunk {
            object,
            index,
            bytes,
        });
    }

    /// Lists a segment and brings all of it.
    fn complete(&self, sequence: u64, length: usize) {
        for (index, chunk) in (0..).zip(self.list(sequence, length)) {
            self.chunk(sequence, index, &chunk);
        }
        let object = ObjectKey::segment(TRACK, 0, sequence);
        let from = Provenance {
            parent_bytes: length as u64,
            ..Provenance::default()
        };
        self.store.apply(Publication::Complete {
            object,
            at: Duration::ZERO,
            from,
        });
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http
            .get(self.url(path))
            .timeout(DEADLINE)
            .send()
            .await
            .unwrap()
    }

    async fn next_event(&mut self) -> Event {
        tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn bytes_of(sequence: u64, length: usize) -> Bytes {
    (0..length)
        .map(|i| (i as u64 * 31 + sequence).to_le_bytes()[0])
        .collect()
}

fn descriptor(sequence: u64, body: &[u8]) -> Descriptor {
    let mut hasher = ObjectHasher::new();
    hasher.push(body).unwrap();
    Descriptor {
        key: ObjectKey::segment(TRACK, 0, sequence),
        length: body.len() as u64,
        chunk_hashes: hasher.finish().chunk_hashes,
        duration: Duration::from_millis(400),
        program_date_time_ms: None,
        lines: vec!["#EXTINF:0.4,".to_owned()],
        key_lines: Vec::new(),
        init_sequence: None,
        discontinuity_sequence: 0,
        uri: format!("http://origin/s{sequence}.ts"),
        byte_range: None,
    }
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let scene = Scene::new().await;
    scene.headers();
    scene.complete(5, 10);
    for path in [
        "/",
        "/other/master.m3u8",
        "/other/v0/index.m3u8",
        "/other/v0/0-5.ts",
        "/demo/v9/index.m3u8",
        "/demo/v9/0-5.ts",
        "/demo/v0/0-6.ts",
        "/demo/v0/1-5.ts",
        "/demo/v0/0-5.mp4",
        "/demo/v0/0-5-init.ts",
        "/demo/v0/0-05.ts",
        "/demo/v0/nonsense",
    ] {
        assert_eq!(
            scene.get(path).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn before_anything_arrived_players_are_told_to_come_back() {
    let scene = Scene::with(true, Duration::from_millis(50)).await;
    for path in ["/demo/master.m3u8", "/demo/v0/index.m3u8"] {
        let response = scene.get(path).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.headers()["retry-after"], "2", "{path}");
    }
    scene.headers();
    assert_eq!(
        scene.get("/demo/master.m3u8").await.status(),
        StatusCode::OK
    );
    let empty = scene.get("/demo/v1/index.m3u8").await;
    assert_eq!(empty.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_first_playlist_request_waits_for_the_first_segment() {
    let scene = Scene::new().await;
    let early = tokio::spawn(scene.http.get(scene.url("/demo/v0/index.m3u8")).send());
    scene.headers();
    scene.list(5, 10);
    let response = tokio::time::timeout(DEADLINE, early)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.text().await.unwrap().contains("0-5.ts"));
}

#[tokio::test]
async fn playlists_list_the_window_with_our_names() {
    let scene = Scene::new().await;
    scene.headers();
    for sequence in 4..9 {
        scene.list(sequence, 10);
    }
    let master = scene.get("/demo/master.m3u8").await;
    assert_eq!(
        master.headers()["content-type"],
        "application/vnd.apple.mpegurl"
    );
    assert!(master.text().await.unwrap().contains("v0/index.m3u8"));
    let media = scene.get("/demo/v0/index.m3u8").await;
    assert_eq!(media.headers()["access-control-allow-origin"], "*");
    assert_eq!(media.headers()["cache-control"], "no-cache");
    let text = media.text().await.unwrap();
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:6"), "{text}");
    let listed: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(listed, ["0-6.ts", "0-7.ts", "0-8.ts"]);
}

#[tokio::test]
async fn a_playlist_request_is_held_until_its_segment_is_listed() {
    let scene = Scene::new().await;
    scene.headers();
    scene.list(5, 10);
    let held = tokio::spawn(
        scene
            .http
            .get(scene.url("/demo/v0/index.m3u8?_HLS_msn=6"))
            .send(),
    );
    let plain = scene.get("/demo/v0/index.m3u8").await.text().await.unwrap();
    assert!(!plain.contains("0-6.ts"));
    scene.list(6, 10);
    let text = held.await.unwrap().unwrap().text().await.unwrap();
    assert!(text.contains("0-6.ts"));
    // What is listed already is answered at once, what never comes after 1.5 target durations.
    let now = scene.get("/demo/v0/index.m3u8?_HLS_msn=3").await;
    assert_eq!(now.status(), StatusCode::OK);
    let late = scene
        .get("/demo/v0/index.m3u8?_HLS_msn=7")
        .await
        .text()
        .await
        .unwrap();
    assert!(late.contains("0-6.ts") && !late.contains("0-7.ts"));
    let ahead = scene.get("/demo/v0/index.m3u8?_HLS_msn=99").await;
    assert_eq!(ahead.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_player_that_has_the_newest_is_held_and_then_told_so() {
    let scene = Scene::new().await;
    scene.headers();
    scene.list(5, 10);
    let tag = scene.get("/demo/v0/index.m3u8").await.headers()["etag"].clone();
    let again = || {
        let request = scene.http.get(scene.url("/demo/v0/index.m3u8"));
        request
            .header("if-none-match", tag.clone())
            .timeout(DEADLINE)
            .send()
    };
    assert_eq!(again().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    let held = tokio::spawn(again());
    scene.list(6, 10);
    assert_eq!(held.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn reading_another_track_makes_the_peer_want_it() {
    let mut scene = Scene::with(true, Duration::from_millis(50)).await;
    scene.headers();
    scene.list(5, 10);
    drop(scene.get("/demo/v0/index.m3u8").await);
    drop(scene.get("/demo/v0/index.m3u8").await);
    drop(scene.get("/demo/v1/index.m3u8").await);
    for expected in [vec!["v0"], vec!["v0", "v1"]] {
        let Event::TracksWanted { tracks } = scene.next_event().await else {
            panic!("another event")
        };
        let expected: Vec<_> = expected
            .into_iter()
            .map(|n| TrackName(n.to_owned()))
            .collect();
        assert_eq!(tracks, expected);
    }
}

#[tokio::test]
async fn a_whole_object_is_served_whole_and_in_parts() {
    let scene = Scene::new().await;
    scene.headers();
    let length = CHUNK_SIZE * 2 + 1000;
    scene.complete(5, length);
    let body = bytes_of(5, length);
    let whole = scene.get("/demo/v0/0-5.ts").await;
    assert_eq!(whole.headers()["content-type"], "video/mp2t");
    assert_eq!(whole.content_length(), Some(length as u64));
    assert_eq!(whole.bytes().await.unwrap(), body);
    let table = [
        ("bytes=0-9", 0..10),
        ("bytes=61430-61449", 61_430..61_450),
        ("bytes=-5", length - 5..length),
        ("bytes=122880-", 122_880..length),
    ];
    for (range, expected) in table {
        let request = scene
            .http
            .get(scene.url("/demo/v0/0-5.ts"))
            .header("range", range);
        let part = request.timeout(DEADLINE).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let (first, last) = (expected.start, expected.end - 1);
        assert_eq!(
            part.headers()["content-range"],
            format!("bytes {first}-{last}/{length}")
        );
        assert_eq!(part.bytes().await.unwrap(), body.slice(expected), "{range}");
    }
    let request = scene
        .http
        .get(scene.url("/demo/v0/0-5.ts"))
        .header("range", "bytes=999999-");
    let beyond = request.send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        beyond.headers()["content-range"],
        format!("bytes */{length}")
    );
}

#[tokio::test]
async fn head_and_options_work_without_bytes() {
    let mut scene = Scene::new().await;
    scene.headers();
    scene.list(5, 1234);
    let head = scene
        .http
        .head(scene.url("/demo/v0/0-5.ts"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-length"], "1234");
    assert!(scene.events.try_recv().is_err(), "HEAD makes nobody fetch");
    let head = scene
        .http
        .head(scene.url("/demo/v0/index.m3u8"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    let options = scene
        .http
        .request(Method::OPTIONS, scene.url("/demo/v0/0-5.ts"));
    let options = options.send().await.unwrap();
    assert_eq!(options.status(), StatusCode::NO_CONTENT);
    assert_eq!(options.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn chunks_stream_as_they_arrive_in_whatever_order() {
    let mut scene = Scene::new().await;
    scene.headers();
    let length = CHUNK_SIZE * 3;
    let chunks = scene.list(5, length);
    let request = tokio::spawn(scene.http.get(scene.url("/demo/v0/0-5.ts")).send());
    let wanted = scene.next_event().await;
    assert!(matches!(wanted, Event::PlayerWants { object } if object.sequence == 5));
    scene.chunk(5, 2, &chunks[2]);
    scene.chunk(5, 0, &chunks[0]);
    // The first chunk is delivered while the second is still missing.
    let mut response = request.await.unwrap().unwrap();
    let mut received = Vec::new();
    while received.len() < CHUNK_SIZE {
        received.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    scene.chunk(5, 1, &chunks[1]);
    while let Some(bytes) = response.chunk().await.unwrap() {
        received.extend_from_slice(&bytes);
    }
    assert_eq!(received, bytes_of(5, length));
}

#[tokio::test]
async fn an_evicted_object_is_asked_for_again() {
    let mut scene = Scene::new().await;
    scene.headers();
    scene.complete(5, 100);
    let object = ObjectKey::segment(TRACK, 0, 5);
    scene.store.apply(Publication::Evicted { object });
    let request = tokio::spawn(scene.http.get(scene.url("/demo/v0/0-5.ts")).send());
    assert!(matches!(scene.next_event().await, Event::PlayerWants { object: o } if o == object));
    scene.chunk(5, 0, &bytes_of(5, 100));
    assert_eq!(
        request.await.unwrap().unwrap().bytes().await.unwrap(),
        bytes_of(5, 100)
    );
}

#[tokio::test]
async fn an_eviction_in_the_middle_of_a_body_is_survived() {
    let mut scene = Scene::new().await;
    scene.headers();
    let length = CHUNK_SIZE * 2;
    let chunks = scene.list(5, length);
    scene.chunk(5, 0, &chunks[0]);
    let mut response = scene.get("/demo/v0/0-5.ts").await;
    let first = scene.next_event().await;
    assert!(matches!(first, Event::PlayerWants { .. }));
    scene.store.apply(Publication::Evicted {
        object: ObjectKey::segment(TRACK, 0, 5),
    });
    assert!(matches!(
        scene.next_event().await,
        Event::PlayerWants { .. }
    ));
    scene.chunk(5, 1, &chunks[1]);
    let mut received = Vec::new();
    while let Some(bytes) = response.chunk().await.unwrap() {
        received.extend_from_slice(&bytes);
    }
    assert_eq!(received, bytes_of(5, length));
}

#[tokio::test]
async fn verified_and_unverified_bytes_never_share_a_response() {
    let mut scene = Scene::new().await;
    scene.headers();
    let chunks = scene.list(5, CHUNK_SIZE * 2);
    scene.chunk(5, 0, &chunks[0]);
    let mut response = scene.get("/demo/v0/0-5.ts").await;
    assert!(matches!(
        scene.next_event().await,
        Event::PlayerWants { .. }
    ));
    let object = ObjectKey::segment(TRACK, 0, 5);
    let body = vec![Bytes::from(vec![7; CHUNK_SIZE * 2])];
    scene.store.apply(Publication::Unverified {
        object,
        descriptor: None,
        body,
    });
    let cut = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(
        cut,
        "a response that began with verified bytes must not end well"
    );
    let again = scene.get("/demo/v0/0-5.ts").await.bytes().await.unwrap();
    assert_eq!(again, vec![7; CHUNK_SIZE * 2]);
}

#[tokio::test]
async fn a_bypassed_segment_is_listed_and_served() {
    let scene = Scene::new().await;
    scene.headers();
    scene.complete(5, 100);
    let mut unsigned = descriptor(6, &[]);
    unsigned.length = 4;
    let object = unsigned.key;
    scene.store.apply(Publication::Unverified {
        object,
        descriptor: Some(Arc::new(unsigned)),
        body: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")],
    });
    let text = scene.get("/demo/v0/index.m3u8").await.text().await.unwrap();
    assert!(text.contains("0-6.ts"), "{text}");
    assert_eq!(
        scene.get("/demo/v0/0-6.ts").await.bytes().await.unwrap(),
        "abcd"
    );
    // The signed description comes later; the bytes stay those that were played.
    scene.list(6, 77);
    assert_eq!(
        scene.get("/demo/v0/0-6.ts").await.bytes().await.unwrap(),
        "abcd"
    );
}

#[tokio::test]
async fn statistics_say_what_was_completed_and_from_where() {
    let scene = Scene::new().await;
    scene.headers();
    scene.complete(5, 100);
    let deadline = Instant::now() + DEADLINE;
    let stats: serde_json::Value = loop {
        let text = scene.get("/stats").await.text().await.unwrap();
        let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
        if stats["objects"]
            .as_array()
            .is_some_and(|objects| !objects.is_empty())
        {
            break stats;
        }
        assert!(
            Instant::now() < deadline,
            "the object was never recorded: {stats}"
        );
    };
    let object = &stats["objects"][0];
    let expected = <sha2::Sha256 as sha2::Digest>::digest(bytes_of(5, 100));
    let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(object["sha256"], expected);
    assert_eq!(
        (&object["track"], &object["sequence"]),
        (&"v0".into(), &5.into())
    );
    assert_eq!(object["from"]["parent"], 100);
    assert_eq!(object["verified"], true);
    assert_eq!(stats["peer"], "0000000000000007");
    assert_eq!(stats["session"], "detached");
}

#[tokio::test]
async fn a_relay_serves_only_people_and_scripts() {
    let scene = Scene::with(false, Duration::from_millis(50)).await;
    scene.headers();
    scene.complete(5, 100);
    for (path, status) in [
        ("/stats", StatusCode::OK),
        ("/metrics", StatusCode::OK),
        ("/healthz", StatusCode::OK),
        ("/demo/master.m3u8", StatusCode::NOT_FOUND),
        ("/demo/v0/0-5.ts", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(scene.get(path).await.status(), status, "{path}");
    }
    let metrics = scene.get("/metrics").await.text().await.unwrap();
    for line in metrics.lines() {
        assert!(
            line.trim_start_matches("# TYPE ")
                .starts_with("espalier_peer_"),
            "{line}"
        );
    }
    assert!(
        metrics.contains("espalier_peer_received_cdn_bytes_total 0"),
        "{metrics}"
    );
}
