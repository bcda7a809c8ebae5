//! The signer against a real origin on loopback: what it lists, and everything that it may do wrong.

mod support;

use std::time::Duration;

use axum::body::Bytes;
use espalier_media::{ByteRange, ObjectKey, ObjectKind, StatementKey, TrackIndex};
use espalier_signer::{
    FeedEvent, OriginState, Signer, SignerConfig, SignerHandle, SignerState, StartError,
};
use std::sync::Arc;
use support::{Live, Origin, Reader, Resource, descriptors, headers, segments, wait_for};
use tokio::sync::Semaphore;

fn key() -> StatementKey {
    StatementKey::from_seed(&[9; 32])
}

fn start_with(url: String, state: SignerState) -> SignerHandle {
    Signer::start(SignerConfig {
        origin_uri: url,
        key: key(),
        state,
    })
    .expect("a signer")
}

fn start(url: String) -> SignerHandle {
    start_with(url, SignerState::default())
}

async fn until_state(signer: &SignerHandle, state: OriginState) -> String {
    wait_for(&format!("{state:?}"), || {
        let origin = signer.status().origin;
        (origin.state == state).then_some(origin.problem)
    })
    .await
}

#[tokio::test]
async fn a_media_playlist_is_signed_object_by_object_each_read_once() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(10..14);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 13).await;
    live.publish([14]);
    reader.until_segment(0, 14).await;

    assert_eq!(reader.segment_numbers(0), [10, 11, 12, 13, 14]);
    for descriptor in segments(&reader.events) {
        let bytes = live.segment_bytes(descriptor.key.sequence);
        assert_eq!(descriptor.length, bytes.len() as u64);
        for (index, chunk) in (0..).zip(bytes.chunks(espalier_media::CHUNK_SIZE)) {
            let index = espalier_media::ChunkIndex(index);
            assert_eq!(descriptor.verify_chunk(index, chunk), Ok(()));
        }
    }
    let master = signer.master().expect("a master header");
    assert_eq!(
        (master.tracks.len(), master.tracks[0].name.as_str()),
        (1, "main")
    );
    assert!(master.playlist.is_empty());
    assert_eq!(
        headers(&reader.events)
            .next()
            .map(|header| header.window_segments),
        Some(4)
    );
    let status = signer.status();
    assert_eq!(status.origin.state, OriginState::Live);
    assert_eq!(status.tracks[0].newest_sequence, Some(14));
    assert_eq!(status.tracks[0].target_duration, Duration::from_secs(1));
    assert!(
        status.tracks[0].rate_bps > 8 * 70_000,
        "{:?}",
        status.tracks
    );
    for number in 10..15 {
        assert_eq!(origin.hits(&live.segment_path(number)), 1);
    }
    assert!(origin.log().iter().all(|hit| hit.peer == "signer"));
    signer.shutdown().await;
}

#[tokio::test]
async fn objects_are_announced_before_they_are_signed() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    live.publish([2]);
    reader.until_segment(0, 2).await;
    let key = ObjectKey::segment(TrackIndex(0), 0, 2);
    let announced = reader.events.iter().position(|event| {
        matches!(event, FeedEvent::Announce(a) if a.key == key && a.uri == origin.url("/live/seg2.ts"))
    });
    let signed = reader.events.iter().position(|event| {
        matches!(event, FeedEvent::Statement(s) if s.statement().as_object().is_some_and(|d| d.key == key))
    });
    assert!(announced.expect("announced") < signed.expect("signed"));
}

#[tokio::test]
async fn statements_leave_in_order_though_a_download_is_slow() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    let gate = Arc::new(Semaphore::new(0));
    live.publish([1, 2, 3]);
    origin.put(
        "/live/seg2.ts",
        Resource::Gated(live.segment_bytes(2), Arc::clone(&gate)),
    );
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    wait_for("segment 3 read", || {
        (origin.hits("/live/seg3.ts") == 1).then_some(())
    })
    .await;
    reader.until_segment(0, 1).await;
    assert_eq!(reader.segment_numbers(0), [1]);
    gate.add_permits(1);
    reader.until_segment(0, 3).await;
    assert_eq!(reader.segment_numbers(0), [1, 2, 3]);
}

/// An fMP4 master with two variants and an audio rendition.
fn cmaf(origin: &Origin) -> Vec<Live> {
    origin.put_text(
        "/cmaf/master.m3u8",
        "#EXTM3U\n#EXT-X-VERSION:7\n\
         #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"en\",DEFAULT=YES,URI=\"en/index.m3u8\"\n\
         #EXT-X-STREAM-INF:BANDWIDTH=900000,AUDIO=\"a\"\nhi/index.m3u8\n\
         #EXT-X-STREAM-INF:BANDWIDTH=300000,AUDIO=\"a\"\nlo/index.m3u8\n",
    );
    let track = |name: &str| {
        let folder = format!("/cmaf/{name}/");
        origin.put_text(&format!("{folder}init.mp4"), &format!("init of {name}"));
        let mut live = Live::new(origin, &folder);
        live.head += "#EXT-X-MAP:URI=\"init.mp4\"\n";
        live
    };
    ["hi", "lo", "en"].map(track).into()
}

#[tokio::test]
async fn cmaf_with_renditions_and_init_sections() {
    let origin = Origin::start().await;
    let mut tracks = cmaf(&origin);
    for live in &mut tracks {
        live.publish([5, 6]);
    }
    let signer = start(origin.url("/cmaf/master.m3u8"));
    let mut reader = Reader::new(&signer);
    reader
        .until("segment 6 of three tracks", |events| {
            segments(events)
                .filter(|descriptor| descriptor.key.sequence == 6)
                .count()
                == 3
        })
        .await;
    let master = signer.master().expect("a master header");
    let names: Vec<&str> = master
        .tracks
        .iter()
        .map(|track| track.name.as_str())
        .collect();
    assert_eq!(names, ["v0", "v1", "a0"]);
    assert!(
        master.playlist.contains("URI=\"a0/index.m3u8\""),
        "{}",
        master.playlist
    );
    assert!(
        master.playlist.contains("\nv0/index.m3u8\n"),
        "{}",
        master.playlist
    );
    for track in &master.tracks {
        let keys: Vec<ObjectKey> = descriptors(&reader.events)
            .map(|descriptor| descriptor.key)
            .filter(|key| key.track == track.index)
            .collect();
        let index = track.index;
        let expected = [
            ObjectKey::init(index, 0, 5),
            ObjectKey::segment(index, 0, 5),
            ObjectKey::segment(index, 0, 6),
        ];
        assert_eq!(keys, expected);
    }
    assert!(segments(&reader.events).all(|descriptor| descriptor.init_sequence == Some(5)));
    for name in ["hi", "lo", "en"] {
        assert_eq!(origin.hits(&format!("/cmaf/{name}/init.mp4")), 1);
    }
}

#[tokio::test]
async fn a_changed_master_playlist_is_read_again_when_a_track_is_gone() {
    let origin = Origin::start().await;
    let mut tracks = cmaf(&origin);
    for live in &mut tracks {
        live.publish([5]);
    }
    let signer = start(origin.url("/cmaf/master.m3u8"));
    let mut reader = Reader::new(&signer);
    reader
        .until("three tracks", |events| segments(events).count() == 3)
        .await;
    let mut moved = Live::new(&origin, "/cmaf/elsewhere/");
    moved.publish([5]);
    origin.put_text(
        "/cmaf/master.m3u8",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlo/index.m3u8\n\
         #EXT-X-STREAM-INF:BANDWIDTH=2\nelsewhere/index.m3u8\n",
    );
    origin.put("/cmaf/hi/index.m3u8", Resource::Status(410));
    let master = wait_for("another master header", || {
        signer.master().filter(|master| master.revision == 2)
    })
    .await;
    let names: Vec<(u32, &str)> = master
        .tracks
        .iter()
        .map(|track| (track.index.0, track.name.as_str()))
        .collect();
    assert_eq!(names, [(1, "v1"), (3, "v2")]);
    reader
        .until("a segment of the new track", |events| {
            segments(events).any(|descriptor| descriptor.key.track == TrackIndex(3))
        })
        .await;
}

#[tokio::test]
async fn byte_ranges_are_objects_of_their_own() {
    for whole in [false, true] {
        let origin = Origin::start().await;
        let bytes: Bytes = (0..200_000u32)
            .map(|i| (i % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let all = if whole {
            Resource::Whole(bytes.clone())
        } else {
            Resource::Bytes(bytes.clone())
        };
        origin.put("/live/all.mp4", all);
        origin.put_text(
            "/live/index.m3u8",
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"all.mp4\",BYTERANGE=\"500@0\"\n\
             #EXTINF:1,\n#EXT-X-BYTERANGE:100000@500\nall.mp4\n\
             #EXTINF:1,\n#EXT-X-BYTERANGE:99000\nall.mp4\n",
        );
        let signer = start(origin.url("/live/index.m3u8"));
        let mut reader = Reader::new(&signer);
        reader.until_segment(0, 1).await;
        let objects: Vec<_> = descriptors(&reader.events).collect();
        let ranges: Vec<_> = objects.iter().filter_map(|d| d.byte_range).collect();
        let range = |offset, length| ByteRange { offset, length };
        assert_eq!(
            ranges,
            [range(0, 500), range(500, 100_000), range(100_500, 99_000)]
        );
        let first = &bytes[500..500 + espalier_media::CHUNK_SIZE];
        assert_eq!(
            objects[1].verify_chunk(espalier_media::ChunkIndex(0), first),
            Ok(())
        );
        assert_eq!(origin.hits("/live/all.mp4"), 3);
    }
}

#[tokio::test]
async fn a_resource_shorter_than_its_range_is_given_up() {
    let origin = Origin::start().await;
    origin.put_text("/live/all.mp4", "short");
    let mut live = Live::new(&origin, "/live/");
    live.list(1, "#EXT-X-BYTERANGE:100@0\n");
    origin.put_text("/live/seg1.ts", "short");
    live.publish([2]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 2).await;
    assert_eq!(reader.segment_numbers(0), [2]);
}

#[tokio::test]
async fn encrypted_segments_are_untouched_and_keys_never_asked_for() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish_with(1, "#EXT-X-KEY:METHOD=AES-128,URI=\"key/1\"\n");
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    let descriptor = segments(&reader.events).next().expect("a segment");
    let uri = origin.url("/live/key/1");
    assert_eq!(
        descriptor.key_lines,
        [format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{uri}\"")]
    );
    assert_eq!(descriptor.length, live.segment_bytes(1).len() as u64);
    assert_eq!(origin.hits("/live/key/1"), 0);
}

#[tokio::test]
async fn cues_and_late_date_ranges_arrive() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish_with(1, "#EXT-X-CUE-OUT:DURATION=30\n");
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    // Written only now, on a segment that was listed before.
    let date_range = "#EXT-X-DATERANGE:ID=\"x\",START-DATE=\"2026-11-23T07:00:00Z\"";
    live.listed[0].1 += &format!("{date_range}\n");
    live.publish([2]);
    reader.until_segment(0, 2).await;
    let lines: Vec<_> = segments(&reader.events)
        .map(|descriptor| descriptor.lines.clone())
        .collect();
    assert_eq!(lines[0], ["#EXT-X-CUE-OUT:DURATION=30", "#EXTINF:1.000,"]);
    assert_eq!(lines[1], [date_range, "#EXTINF:1.000,"]);
}

#[tokio::test]
async fn gaps_are_described_and_not_read() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1]);
    live.list(2, "#EXT-X-GAP\n");
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 2).await;
    assert_eq!(origin.hits("/live/seg2.ts"), 0);
    assert_eq!(
        segments(&reader.events)
            .last()
            .map(|descriptor| descriptor.length),
        Some(0)
    );
}

#[tokio::test]
async fn redirects_are_followed_and_resolved_against_but_not_forever() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/real/");
    live.publish([1]);
    origin.put("/entry.m3u8", Resource::Redirect("/hop.m3u8".to_owned()));
    origin.put(
        "/hop.m3u8",
        Resource::Redirect("/real/index.m3u8".to_owned()),
    );
    let signer = start(origin.url("/entry.m3u8"));
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    let uri = segments(&reader.events)
        .next()
        .map(|descriptor| descriptor.uri.clone());
    assert_eq!(uri, Some(origin.url("/real/seg1.ts")));
    origin.put("/loop.m3u8", Resource::Redirect("/loop.m3u8".to_owned()));
    let lost = start(origin.url("/loop.m3u8"));
    assert!(
        until_state(&lost, OriginState::Unreachable)
            .await
            .contains("redirects")
    );
}

#[tokio::test]
async fn a_frozen_origin_is_said_to_be_and_recovers() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1, 2]);
    let signer = start(live.url());
    let problem = until_state(&signer, OriginState::Frozen).await;
    assert_eq!(problem, "no new segment since 2");
    live.publish([3]);
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 3).await;
    until_state(&signer, OriginState::Live).await;
}

#[tokio::test]
async fn errors_and_garbage_make_a_clear_state_and_pass() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    let faults = [
        (Resource::Status(404), OriginState::Unreachable, "HTTP 404"),
        (Resource::Status(503), OriginState::Unreachable, "HTTP 503"),
        (
            Resource::Bytes("<html>".into()),
            OriginState::Invalid,
            "#EXTM3U",
        ),
        (
            Resource::Bytes("#EXTM3U\n#EXT-X-TARGETDURATION:1\nx.ts\n".into()),
            OriginState::Invalid,
            "line 3: a URI without EXTINF",
        ),
        (Resource::Endless, OriginState::Unreachable, "longer than"),
    ];
    for (number, (fault, state, problem)) in (2..).zip(faults) {
        origin.put(&live.path(), fault);
        let told = until_state(&signer, state).await;
        let matching = wait_for(problem, || {
            let now = signer.status().origin.problem;
            now.contains(problem).then_some(now)
        });
        assert!(matching.await.contains(problem), "{told}");
        live.publish([number]);
        reader.until_segment(0, number).await;
        until_state(&signer, OriginState::Live).await;
    }
}

#[tokio::test]
async fn an_origin_that_is_not_there_yet_is_waited_for() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    let signer = start(live.url());
    assert_eq!(
        until_state(&signer, OriginState::Unreachable).await,
        "HTTP 404"
    );
    live.publish([1]);
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    until_state(&signer, OriginState::Live).await;
    let nowhere = start("http://127.0.0.1:9/index.m3u8".to_owned());
    assert!(
        until_state(&nowhere, OriginState::Unreachable)
            .await
            .contains("cannot connect")
    );
}

#[tokio::test]
async fn a_restarted_numbering_is_a_new_epoch() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(100..104);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 103).await;
    live.renumber();
    live.publish([0, 1]);
    reader.until_segment(1, 1).await;
    assert_eq!(reader.segment_numbers(1), [0, 1]);
    let header = headers(&reader.events).last().expect("a header");
    assert_eq!((header.epoch, header.from_sequence), (1, 0));
    wait_for("the epoch is in the state", || {
        (signer.watch_state().borrow().tracks[0].epoch == 1).then_some(())
    })
    .await;
    let epochs: Vec<u32> = signer
        .feed()
        .snapshot()
        .iter()
        .filter_map(|statement| {
            statement
                .statement()
                .as_object()
                .map(|descriptor| descriptor.key.epoch)
        })
        .collect();
    assert_eq!(epochs, [1, 1]);
    until_state(&signer, OriginState::Live).await;
}

#[tokio::test]
async fn reused_numbers_are_a_new_epoch_too() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(0..4);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 3).await;
    live.renumber();
    live.prefix = "other".to_owned();
    live.publish(0..5);
    reader.until_segment(1, 4).await;
    assert_eq!(reader.segment_numbers(1), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn an_old_answer_is_no_new_epoch() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(0..4);
    let old = live.text();
    live.publish([4, 5]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 5).await;
    origin.put_text(&live.path(), &old);
    assert_eq!(
        until_state(&signer, OriginState::Invalid).await,
        "the playlist went back from segment 5 to 3"
    );
    live.publish([6]);
    reader.until_segment(0, 6).await;
    assert_eq!(reader.segment_numbers(0), [0, 1, 2, 3, 4, 5, 6]);
    until_state(&signer, OriginState::Live).await;
}

#[tokio::test]
async fn an_origin_that_stays_back_is_a_new_epoch() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(0..6);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 5).await;
    live.renumber();
    live.publish(0..3);
    reader.until_segment(1, 2).await;
}

#[tokio::test]
async fn a_segment_that_never_comes_is_passed_over() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 1).await;
    live.list(2, "");
    let problem = wait_for("a problem", || {
        let origin = signer.status().origin;
        (origin.state == OriginState::Unreachable).then_some(origin.problem)
    });
    assert_eq!(problem.await, "segment 2: HTTP 404");
    let tries = origin.hits("/live/seg2.ts");
    assert!((3..=6).contains(&tries), "{tries} tries");
    live.publish([3]);
    reader.until_segment(0, 3).await;
    assert_eq!(reader.segment_numbers(0), [1, 3]);
    until_state(&signer, OriginState::Live).await;
}

#[tokio::test]
async fn an_object_beyond_the_limit_is_refused_at_once() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1]);
    origin.put("/live/seg1.ts", Resource::Endless);
    live.publish([2]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 2).await;
    assert_eq!(reader.segment_numbers(0), [2]);
    assert_eq!(origin.hits("/live/seg1.ts"), 1);
}

#[tokio::test]
async fn the_end_is_told_and_taken_back() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1, 2]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 2).await;
    live.end();
    reader
        .until("the end", |events| {
            headers(events).any(|header| header.end_sequence == Some(2))
        })
        .await;
    until_state(&signer, OriginState::Ended).await;
    live.ended = false;
    live.publish([3]);
    reader.until_segment(0, 3).await;
    assert_eq!(
        headers(&reader.events)
            .last()
            .map(|header| header.end_sequence),
        Some(None)
    );
}

#[tokio::test]
async fn all_of_what_has_ended_is_signed_but_of_a_live_stream_only_the_end() {
    let origin = Origin::start().await;
    let mut long = Live::new(&origin, "/live/");
    long.window = 40;
    long.publish(0..40);
    let signer = start(long.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 39).await;
    assert_eq!(reader.segment_numbers(0), (28..40).collect::<Vec<_>>());
    long.end();
    let signer = start(long.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 39).await;
    assert_eq!(reader.segment_numbers(0), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restart_goes_on_with_equal_bytes() {
    let origin = Origin::start().await;
    let mut tracks = cmaf(&origin);
    for live in &mut tracks {
        live.publish([5, 6, 7]);
    }
    let first = start(origin.url("/cmaf/master.m3u8"));
    let mut reader = Reader::new(&first);
    let newest =
        |events: &[FeedEvent]| segments(events).filter(|d| d.key.sequence == 7).count() == 3;
    reader.until("three tracks", newest).await;
    let before: Vec<_> = reader
        .statements()
        .map(|signed| signed.encoded().clone())
        .collect();
    first.shutdown().await;
    let state = first.watch_state().borrow().clone();
    let json = serde_json::to_vec(&state).expect("JSON");
    let state = serde_json::from_slice(&json).expect("a state");
    let second = start_with(origin.url("/cmaf/master.m3u8"), state);
    let mut reader = Reader::new(&second);
    reader.until("three tracks", newest).await;
    assert_eq!(before.len(), 1 + 3 * 5);
    for signed in reader.statements() {
        assert!(before.contains(signed.encoded()), "{signed:?}");
    }
}

#[tokio::test]
async fn init_sections_and_epochs_survive_a_restart() {
    let origin = Origin::start().await;
    let mut tracks = cmaf(&origin);
    let live = &mut tracks[0];
    live.window = 2;
    live.publish([5, 6]);
    let first = start(live.url());
    let mut reader = Reader::new(&first);
    reader.until_segment(0, 6).await;
    live.publish([7, 8]);
    reader.until_segment(0, 8).await;
    first.shutdown().await;
    let state = first.watch_state().borrow().clone();
    let second = start_with(live.url(), state.clone());
    let mut reader = Reader::new(&second);
    reader.until_segment(0, 8).await;
    let init = descriptors(&reader.events).find(|d| d.key.kind == ObjectKind::Init);
    assert_eq!(init.map(|descriptor| descriptor.key.sequence), Some(5));
    second.shutdown().await;
    // The origin restarts while no signer runs.
    live.renumber();
    live.publish([0, 1]);
    let third = start_with(live.url(), state);
    let mut reader = Reader::new(&third);
    reader.until_segment(1, 1).await;
    assert!(reader.segment_numbers(0).is_empty());
}

#[tokio::test]
async fn polls_are_conditional_and_within_their_budget() {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.head = live.head.replace("DURATION:1", "DURATION:2");
    live.publish([1, 2]);
    let signer = start(live.url());
    let mut reader = Reader::new(&signer);
    reader.until_segment(0, 2).await;
    until_state(&signer, OriginState::Frozen).await;
    let polls: Vec<_> = origin
        .log()
        .into_iter()
        .filter(|hit| hit.path == live.path())
        .collect();
    assert!(polls.iter().all(|poll| poll.peer == "signer"));
    for start in &polls {
        let end = start.at + Duration::from_millis(1900);
        let count = polls
            .iter()
            .filter(|poll| poll.at >= start.at && poll.at < end)
            .count();
        assert!(count <= 5, "{count} polls in one target duration");
    }
}

#[test]
fn what_is_no_origin_is_refused() {
    for uri in [
        "",
        "origin.example/live",
        "ftp://origin.example/live",
        "file:///etc/passwd",
        "http://",
    ] {
        let config = SignerConfig {
            origin_uri: uri.to_owned(),
            key: key(),
            state: SignerState::default(),
        };
        assert!(
            matches!(Signer::start(config), Err(StartError::Origin(_))),
            "{uri}"
        );
    }
}
