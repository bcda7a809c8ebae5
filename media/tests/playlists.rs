//! Reading playlists, and the way from an origin's playlist over descriptors to a peer's.

use std::time::Duration;

use espalier_media::hls::{
    self, MediaPlaylist, Playlist, PlaylistError, Segment, render_master, render_media_playlist,
};
use espalier_media::{
    ByteRange, Descriptor, MasterHeader, ObjectHasher, ObjectKey, Track, TrackHeader, TrackIndex,
    TrackKind,
};

const BASE: &str = "http://origin.example/live/main/index.m3u8?token=1";
const TRACK: TrackIndex = TrackIndex(4);

fn media(text: &str) -> MediaPlaylist {
    hls::parse_media_playlist(text.as_bytes(), BASE).expect("a media playlist")
}

/// What a signer makes of a playlist: the header, and descriptors in the order of their keys.
fn describe(playlist: &MediaPlaylist) -> (TrackHeader, Vec<Descriptor>) {
    let hashed = || ObjectHasher::new().finish();
    let window = u32::try_from(playlist.segments.len()).expect("few");
    let header = playlist.header(TRACK, 3, playlist.media_sequence, window);
    let mut descriptors: Vec<Descriptor> = Vec::new();
    let mut run = None;
    for segment in &playlist.segments {
        if let Some(init) = &segment.init
            && run.as_ref().is_none_or(|(held, _)| held != init)
        {
            run = Some((init.clone(), segment.sequence));
            descriptors.push(init.descriptor(TRACK, 3, segment.sequence, hashed()));
        }
        let init = run
            .as_ref()
            .filter(|_| segment.init.is_some())
            .map(|(_, first)| *first);
        descriptors.push(segment.descriptor(TRACK, 3, init, hashed()));
    }
    (header, descriptors)
}

fn local(key: &ObjectKey, ext: &str) -> String {
    format!("http://origin.example/live/main/{}", key.file_name(ext))
}

fn render(header: &TrackHeader, descriptors: &[Descriptor]) -> String {
    render_media_playlist(header, descriptors, local)
}

/// What must be the same behind a peer: everything but URIs and byte ranges. Init sections are
/// compared by where they change.
fn essence(playlist: &MediaPlaylist) -> MediaPlaylist {
    let mut essence = playlist.clone();
    let mut runs: Vec<String> = Vec::new();
    for segment in &mut essence.segments {
        segment.uri.clear();
        segment.byte_range = None;
        if let Some(init) = &segment.init {
            let name = format!("{init:?}");
            if runs.last() != Some(&name) {
                runs.push(name);
            }
            segment.init = Some(std::sync::Arc::new(hls::DeclaredInit {
                uri: runs.len().to_string(),
                byte_range: None,
                key_lines: init.key_lines.clone(),
            }));
        }
    }
    essence
}

fn check_round_trip(text: &str) {
    let origin = media(text);
    let (header, descriptors) = describe(&origin);
    let rendered = render(&header, &descriptors);
    let again = media(&rendered);
    assert_eq!(essence(&again), essence(&origin), "{rendered}");
}

const TS: &str = "#EXTM3U
#EXT-X-VERSION:3
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:3
#EXT-X-MEDIA-SEQUENCE:17
#EXTINF:2.002000,
seg17.ts
#EXTINF:2.002000,a title, with a comma
/abs/seg18.ts
#EXTINF:1.5
http://cdn.example/seg19.ts
";

#[test]
fn ts_goes_round() {
    check_round_trip(TS);
    check_round_trip(&TS.replace('\n', "\r\n"));
    check_round_trip(&format!("\u{feff}{TS}#EXT-X-ENDLIST\n"));
    check_round_trip("#EXTM3U\n#EXT-X-TARGETDURATION:3\n");
}

#[test]
fn segments_are_resolved() {
    let playlist = media(TS);
    let uris: Vec<&str> = playlist
        .segments
        .iter()
        .map(|segment| segment.uri.as_str())
        .collect();
    assert_eq!(
        uris,
        [
            "http://origin.example/live/main/seg17.ts",
            "http://origin.example/abs/seg18.ts",
            "http://cdn.example/seg19.ts"
        ]
    );
    assert_eq!(
        playlist.segments[1].lines,
        ["#EXTINF:2.002000,a title, with a comma"]
    );
    assert_eq!(
        playlist.segments[0].duration,
        Duration::from_micros(2_002_000)
    );
    assert_eq!(playlist.last_sequence(), Some(19));
    assert_eq!(playlist.target_duration, Duration::from_secs(3));
    let tiny = media("#EXTM3U\n#EXT-X-TARGETDURATION:0\n");
    assert_eq!(tiny.target_duration, Duration::from_secs(1));
}

const FMP4: &str = "#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:100
#EXT-X-DISCONTINUITY-SEQUENCE:5
#EXT-X-MAP:URI=\"init.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:00:00.250+0000
#EXTINF:4.000,
100.m4s
#EXTINF:4.000,
101.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"ads.mp4\",BYTERANGE=\"600@20\"
#EXTINF:4.000,
ad1.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:00:12.250+0000
#EXTINF:4.000,
103.m4s
";

#[test]
fn fmp4_with_several_init_sections_and_discontinuities_goes_round() {
    check_round_trip(FMP4);
    let playlist = media(FMP4);
    let numbers: Vec<u64> = playlist
        .segments
        .iter()
        .map(|segment| segment.discontinuity_sequence)
        .collect();
    assert_eq!(numbers, [5, 5, 6, 7]);
    let ad = playlist.segments[2]
        .init
        .as_deref()
        .expect("an init section");
    assert_eq!(
        ad.byte_range,
        Some(ByteRange {
            offset: 20,
            length: 600
        })
    );
}

#[test]
fn dates_are_derived_up_to_a_discontinuity() {
    let dates: Vec<Option<i64>> = media(FMP4)
        .segments
        .iter()
        .map(|segment| segment.program_date_time_ms)
        .collect();
    let start = 1_795_417_200_250;
    assert_eq!(
        dates,
        [Some(start), Some(start + 4000), None, Some(start + 12_000)]
    );
}

#[test]
fn a_window_keeps_its_date_init_section_and_numbers() {
    let (mut header, descriptors) = describe(&media(FMP4));
    header.window_segments = 3;
    let rendered = render(&header, &descriptors);
    let window = media(&rendered);
    assert_eq!(window.media_sequence, 101);
    let numbers: Vec<u64> = window
        .segments
        .iter()
        .map(|segment| segment.discontinuity_sequence)
        .collect();
    assert_eq!(numbers, [5, 6, 7]);
    assert_eq!(
        window.segments[0].program_date_time_ms,
        Some(1_795_417_204_250)
    );
    assert!(rendered.contains("#EXT-X-MAP:URI=\"http://origin.example/live/main/3-100-init.mp4\""));
    assert!(rendered.contains("/3-101.m4s"), "{rendered}");
    // Where the discontinuity itself has become the first, its number is not counted twice.
    header.window_segments = 2;
    let window = media(&render(&header, &descriptors));
    assert_eq!(window.segments[0].discontinuity_sequence, 6);
}

#[test]
fn byte_ranges_become_objects_of_their_own() {
    let text = "#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-MAP:URI=\"all.mp4\",BYTERANGE=\"800@0\"
#EXTINF:2,
#EXT-X-BYTERANGE:1000@800
all.mp4
#EXT-X-BYTERANGE:2000
#EXTINF:2,
all.mp4
#EXTINF:2,
#EXT-X-BYTERANGE:10
all.mp4
";
    let playlist = media(text);
    let ranges: Vec<Option<ByteRange>> = playlist
        .segments
        .iter()
        .map(|segment| segment.byte_range)
        .collect();
    let range = |offset, length| Some(ByteRange { offset, length });
    assert_eq!(
        ranges,
        [range(800, 1000), range(1800, 2000), range(3800, 10)]
    );
    check_round_trip(text);
    let (header, descriptors) = describe(&playlist);
    assert!(!render(&header, &descriptors).contains("BYTERANGE"));
}

#[test]
fn cues_date_ranges_gaps_and_unknown_tags_stay() {
    let text = "#EXTM3U
#EXT-X-VERSION:6
## Created by a packager
#EXT-X-VENDOR-HEAD:1
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-VENDOR-SEGMENT:x=\"1\"
#EXTINF:2,
7.ts
#EXT-OATCLS-SCTE35:/DAlAAAAAAAAAP/wFAUAAAABf+/+
#EXT-X-CUE-OUT:30.000
#EXT-X-DATERANGE:ID=\"ad\",START-DATE=\"2026-11-23T07:00:00Z\",SCTE35-OUT=0xFC
#EXT-X-BITRATE:1500
#EXTINF:2,
8.ts
# a remark
#EXT-X-GAP
#EXTINF:2,
9.ts
#EXT-X-CUE-IN
";
    let playlist = media(text);
    assert_eq!(
        playlist.lines,
        [
            "#EXT-X-VERSION:6",
            "## Created by a packager",
            "#EXT-X-VENDOR-HEAD:1",
            "#EXT-X-TARGETDURATION:2"
        ]
    );
    assert_eq!(
        playlist.segments[0].lines,
        ["#EXT-X-VENDOR-SEGMENT:x=\"1\"", "#EXTINF:2,"]
    );
    assert_eq!(playlist.segments[1].lines.len(), 5);
    assert!(playlist.segments[2].gap);
    assert_eq!(playlist.trailing_lines, ["#EXT-X-CUE-IN"]);
    let mut expected = essence(&playlist);
    expected.trailing_lines.clear();
    let (header, descriptors) = describe(&playlist);
    assert_eq!(essence(&media(&render(&header, &descriptors))), expected);
}

const KEYS: &str = "#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:1
#EXT-X-MAP:URI=\"clear.mp4\"
#EXTINF:2,
1.m4s
#EXT-X-KEY:METHOD=AES-128,URI=\"keys/1?a=b\",IV=0x01
#EXTINF:2,
2.m4s
#EXTINF:2,
3.m4s
#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://drm/2\",KEYFORMAT=\"com.apple.streamingkeydelivery\",KEYFORMATVERSIONS=\"1\"
#EXTINF:2,
4.m4s
#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/3\"
#EXT-X-MAP:URI=\"encrypted.mp4\"
#EXTINF:2,
5.m4s
#EXT-X-KEY:METHOD=NONE
#EXTINF:2,
6.m4s
#EXT-X-KEY:METHOD=AES-128,URI=\"4\"
#EXTINF:2,
7.m4s
";

#[test]
fn keys_are_made_absolute_and_otherwise_untouched() {
    check_round_trip(KEYS);
    let segments = media(KEYS).segments;
    let keys: Vec<Vec<&str>> = segments
        .iter()
        .map(|segment| segment.key_lines.iter().map(String::as_str).collect())
        .collect();
    let fairplay = "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://drm/2\",\
        KEYFORMAT=\"com.apple.streamingkeydelivery\",KEYFORMATVERSIONS=\"1\"";
    let first =
        "#EXT-X-KEY:METHOD=AES-128,URI=\"http://origin.example/live/main/keys/1?a=b\",IV=0x01";
    let third = "#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/3\"";
    let fourth = "#EXT-X-KEY:METHOD=AES-128,URI=\"http://origin.example/live/main/4\"";
    let expected: [&[&str]; 7] = [
        &[],
        &[first],
        &[first],
        &[fairplay, first],
        &[fairplay, third],
        &[],
        &[fourth],
    ];
    for (keys, expected) in keys.iter().zip(expected) {
        let sorted = |lines: &[&str]| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(keys), sorted(expected));
    }
    let clear = segments[1].init.as_deref().expect("an init section");
    assert!(clear.key_lines.is_empty());
    let encrypted = segments[4].init.as_deref().expect("an init section");
    assert_eq!(encrypted.key_lines.len(), 2);
}

#[test]
fn only_the_newest_run_is_listed() {
    let (header, mut descriptors) = describe(&media(TS));
    descriptors.remove(1);
    let rendered = media(&render(&header, &descriptors));
    assert_eq!((rendered.media_sequence, rendered.segments.len()), (19, 1));
    let (header, mut descriptors) = describe(&media(FMP4));
    // Without the init section of the advertisement, nothing before the return is listed.
    descriptors.retain(|descriptor| descriptor.key != ObjectKey::init(TRACK, 3, 102));
    let rendered = media(&render(&header, &descriptors));
    assert_eq!((rendered.media_sequence, rendered.segments.len()), (103, 1));
    assert!(media(&render(&header, &[])).segments.is_empty());
}

#[test]
fn the_end_is_written_when_it_is_reached() {
    let ended = format!("{TS}#EXT-X-ENDLIST\n");
    let (header, mut descriptors) = describe(&media(&ended));
    assert!(media(&render(&header, &descriptors)).ended);
    descriptors.pop();
    assert!(!media(&render(&header, &descriptors)).ended);
}

#[test]
fn what_only_the_origins_server_can_do_is_left_out() {
    let text = "#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0,HOLD-BACK=6.0
#EXT-X-PART-INF:PART-TARGET=0.33
#EXT-X-PART:DURATION=0.33,URI=\"1.1.m4s\"
#EXTINF:2,
1.m4s
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"2.1.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../other.m3u8\",LAST-MSN=1
";
    let playlist = media(text);
    assert_eq!(playlist.lines.len(), 3);
    let (header, descriptors) = describe(&playlist);
    let rendered = render(&header, &descriptors);
    assert!(
        rendered.contains("#EXT-X-SERVER-CONTROL:HOLD-BACK=6.0\n"),
        "{rendered}"
    );
    for left_out in ["PART", "BLOCK", "HINT", "REPORT"] {
        assert!(!rendered.contains(left_out), "{left_out} in {rendered}");
    }
}

#[test]
fn broken_playlists_are_told_apart() {
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
    let malformed = |line, what| PlaylistError::Malformed { line, what };
    let table: [(&str, PlaylistError); 16] = [
        ("", PlaylistError::NotAPlaylist),
        ("<html>not found</html>", PlaylistError::NotAPlaylist),
        ("#EXTM3U8\n", PlaylistError::NotAPlaylist),
        (
            "#EXTM3U\n#EXTINF:2,\na.ts\n",
            PlaylistError::Missing("EXT-X-TARGETDURATION"),
        ),
        (
            &format!("{head}a.ts\n"),
            malformed(3, "a URI without EXTINF"),
        ),
        (
            &format!("{head}#EXTINF:two,\na.ts\n"),
            malformed(3, "not a duration"),
        ),
        (
            &format!("{head}#EXTINF:-1,\na.ts\n"),
            malformed(3, "not a duration"),
        ),
        (
            &format!("{head}#EXTINF:inf,\na.ts\n"),
            malformed(3, "not a duration"),
        ),
        (
            &format!("{head}#EXTINF:1e9,\na.ts\n"),
            malformed(3, "the duration is too long"),
        ),
        (
            &format!("{head}#EXT-X-MEDIA-SEQUENCE:x\n"),
            malformed(3, "not a number"),
        ),
        (
            &format!("{head}#EXTINF:2,\n#EXT-X-BYTERANGE:10\na.ts\n"),
            malformed(5, "a byte range that continues nothing"),
        ),
        (
            &format!("{head}#EXT-X-BYTERANGE:0@1\n"),
            malformed(3, "not a byte range"),
        ),
        (
            &format!("{head}#EXTINF:2,\nfile:///etc/passwd\n"),
            malformed(4, "neither an HTTP nor an HTTPS URI"),
        ),
        (
            &format!("{head}#EXT-X-KEY:URI=\"k\"\n"),
            malformed(3, "METHOD is missing"),
        ),
        (
            &format!("{head}#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n"),
            PlaylistError::Unsupported("a delta update"),
        ),
        (
            &format!(
                "{head}#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n#EXTINF:1,\na\n#EXTINF:1,\nb\n"
            ),
            malformed(7, "the sequence overflows"),
        ),
    ];
    for (text, error) in table {
        assert_eq!(
            hls::parse_media_playlist(text.as_bytes(), BASE),
            Err(error),
            "{text}"
        );
    }
    assert_eq!(
        hls::parse(b"#EXTM3U\n\xff", BASE),
        Err(PlaylistError::NotUtf8)
    );
    assert_eq!(
        hls::parse(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n", "index"),
        Err(PlaylistError::Base)
    );
    let long = vec![b'#'; espalier_media::limits::MAX_PLAYLIST_LEN + 1];
    assert!(matches!(
        hls::parse(&long, BASE),
        Err(PlaylistError::Exceeds(_))
    ));
}

#[test]
fn too_many_segments_are_refused() {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n".to_owned();
    text += &"#EXTINF:1,\na\n".repeat(espalier_media::limits::MAX_SEGMENTS + 1);
    assert!(matches!(
        hls::parse(text.as_bytes(), BASE),
        Err(PlaylistError::Exceeds(_))
    ));
}

// ---- master playlists ---------------------------------------------------------------------------

const MASTER: &str = "#EXTM3U
#EXT-X-VERSION:6
#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"session.key\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"English\",LANGUAGE=\"en\",DEFAULT=YES,URI=\"en/audio.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"Deutsch\",LANGUAGE=\"de\",URI=\"de/audio.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac-hi\",NAME=\"English\",DEFAULT=YES,URI=\"en/audio.m3u8\"
#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"cc\",NAME=\"CC\",INSTREAM-ID=\"CC1\"
#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1280x720,AUDIO=\"aac\",CLOSED-CAPTIONS=\"cc\"
720/video.m3u8?t=1
#EXT-X-STREAM-INF:BANDWIDTH=800000,AUDIO=\"aac-hi\"
360/video.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=820000,AUDIO=\"aac\"
360/video.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=86000,URI=\"720/iframes.m3u8\"
";

fn master() -> hls::MasterPlaylist {
    hls::parse_master(MASTER.as_bytes(), "http://origin.example/live/master.m3u8")
        .expect("a master")
}

#[test]
fn tracks_are_found_once_each_variants_first() {
    let tracks = master().tracks;
    let found: Vec<(&str, TrackKind, u64, &str, bool)> = tracks
        .iter()
        .map(|t| {
            (
                t.uri.as_str(),
                t.kind,
                t.bandwidth_bps,
                t.group.as_str(),
                t.default_rendition,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "http://origin.example/live/720/video.m3u8?t=1",
                TrackKind::Variant,
                3_000_000,
                "",
                false
            ),
            (
                "http://origin.example/live/360/video.m3u8",
                TrackKind::Variant,
                820_000,
                "",
                false
            ),
            (
                "http://origin.example/live/en/audio.m3u8",
                TrackKind::Audio,
                0,
                "aac",
                true
            ),
            (
                "http://origin.example/live/de/audio.m3u8",
                TrackKind::Audio,
                0,
                "aac",
                false
            ),
        ]
    );
    assert_eq!(tracks[0].plays_with, ["aac"]);
    // The group "aac-hi" names a playlist of "aac": the one name stands for both.
    assert_eq!(tracks[1].plays_with, ["aac", "aac"]);
}

#[test]
fn only_the_uris_of_media_playlists_are_changed() {
    let playlist = master().playlist(&["v0", "v1", "a0", "a1"]);
    let expected = MASTER
        .replace("720/video.m3u8?t=1", "v0/index.m3u8")
        .replace("360/video.m3u8", "v1/index.m3u8")
        .replace("en/audio.m3u8", "a0/index.m3u8")
        .replace("de/audio.m3u8", "a1/index.m3u8")
        .replace(
            "\"session.key\"",
            "\"http://origin.example/live/session.key\"",
        )
        .replace(
            "\"720/iframes.m3u8\"",
            "\"http://origin.example/live/720/iframes.m3u8\"",
        );
    assert_eq!(playlist, expected);
}

fn master_header(playlist: String) -> MasterHeader {
    let track = |index: u32, declared: &hls::DeclaredTrack| Track {
        index: TrackIndex(index),
        name: format!("t{index}"),
        uri: declared.uri.clone(),
        bandwidth_bps: declared.bandwidth_bps,
        kind: declared.kind,
        group: declared.group.clone(),
        plays_with: declared.plays_with.clone(),
        default_rendition: declared.default_rendition,
    };
    let tracks = (0..)
        .zip(&master().tracks)
        .map(|(index, declared)| track(index, declared))
        .collect();
    MasterHeader {
        revision: 1,
        tracks,
        playlist,
    }
}

#[test]
fn a_viewer_without_a_wish_gets_a_variant_and_its_sound() {
    let header = master_header(String::new());
    let names: Vec<&str> = header
        .default_tracks()
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(names, ["t0", "t2"]);
}

#[test]
fn a_channel_without_a_master_gets_one() {
    let mut header = master_header(String::new());
    header.tracks.truncate(1);
    let rendered = render_master(&header);
    let parsed = hls::parse_master(rendered.as_bytes(), "http://peer.example/news/master.m3u8");
    assert_eq!(
        parsed.expect("a master").tracks[0].uri,
        "http://peer.example/news/t0/index.m3u8"
    );
    assert_eq!(
        render_master(&master_header("#EXTM3U\n".to_owned())),
        "#EXTM3U\n"
    );
}

#[test]
fn the_kinds_of_playlists_are_told_apart() {
    assert!(matches!(
        hls::parse(MASTER.as_bytes(), BASE),
        Ok(Playlist::Master(_))
    ));
    assert!(matches!(
        hls::parse(TS.as_bytes(), BASE),
        Ok(Playlist::Media(_))
    ));
    let wrong = hls::parse_media_playlist(MASTER.as_bytes(), BASE);
    assert_eq!(wrong, Err(PlaylistError::WrongKind("master playlist")));
    let mixed = format!("{MASTER}#EXTINF:2,\na.ts\n");
    assert!(matches!(
        hls::parse(mixed.as_bytes(), BASE),
        Err(PlaylistError::Malformed { .. })
    ));
}

// ---- properties ---------------------------------------------------------------------------------

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Lines that origins write, well-formed and not.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("#EXTINF:2,\nseg.ts".to_owned()),
            "[0-9.,eE-]{0,8}".prop_map(|text| format!("#EXTINF:{text}")),
            "[0-9@]{0,24}".prop_map(|text| format!("#EXT-X-BYTERANGE:{text}")),
            "[A-Z=\",a-z]{0,30}".prop_map(|text| format!("#EXT-X-KEY:{text}")),
            "[A-Z=\",a-z@0-9]{0,30}".prop_map(|text| format!("#EXT-X-MAP:{text}")),
            "\\PC{0,30}".prop_map(|text| format!("#EXT-X-PROGRAM-DATE-TIME:{text}")),
            "[0-9]{0,22}".prop_map(|text| format!("#EXT-X-MEDIA-SEQUENCE:{text}")),
            "[A-Z=\",a-z]{0,30}".prop_map(|text| format!("#EXT-X-STREAM-INF:{text}\nx.m3u8")),
            "[A-Z=\",a-z]{0,30}".prop_map(|text| format!("#EXT-X-MEDIA:{text}")),
            Just("#EXT-X-DISCONTINUITY".to_owned()),
            Just("#EXT-X-ENDLIST".to_owned()),
            Just("#EXT-X-TARGETDURATION:2".to_owned()),
            "\\PC{0,40}",
        ]
    }

    /// A well-formed media playlist with everything in it.
    fn playlist() -> impl Strategy<Value = String> {
        let before = prop_oneof![
            4 => Just(String::new()),
            1 => Just("#EXT-X-DISCONTINUITY\n".to_owned()),
            1 => (0u8..3).prop_map(|n| format!("#EXT-X-MAP:URI=\"init{n}.mp4\"\n")),
            1 => (0u8..3).prop_map(|n| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key{n}\"\n")),
            1 => (0u8..3).prop_map(|n| {
                format!("#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://{n}\",KEYFORMAT=\"com.example\"\n")
            }),
            1 => Just("#EXT-X-KEY:METHOD=NONE\n".to_owned()),
            1 => (0u32..60).prop_map(|s| format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:00:{s:02}Z\n")),
            1 => "[ -~]{0,20}".prop_map(|text| format!("#EXT-X-CUE-{}\n", text.trim_end())),
        ];
        let segment = (proptest::collection::vec(before, 0..4), 1u32..5_000_000).prop_map(
            |(before, micros)| {
                let seconds = f64::from(micros) / 1e6;
                format!("{}#EXTINF:{seconds:.6},\ns.m4s\n", before.concat())
            },
        );
        (
            0u64..1 << 40,
            0u64..9,
            proptest::collection::vec(segment, 1..20),
            any::<bool>(),
        )
            .prop_map(|(sequence, discontinuity, segments, ended)| {
                format!(
                    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n\
                     #EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity}\n{}{}",
                    segments.concat(),
                    if ended { "#EXT-X-ENDLIST\n" } else { "" }
                )
            })
    }

    /// Whatever is read without an error can be relied upon.
    fn check_sanity(bytes: &[u8]) -> Result<(), TestCaseError> {
        match hls::parse(bytes, BASE) {
            Ok(Playlist::Media(media)) => {
                let numbers = media.segments.windows(2);
                prop_assert!(
                    numbers
                        .map(|pair| (pair[0].sequence, pair[1].sequence))
                        .all(|(a, b)| a + 1 == b)
                );
                prop_assert!(
                    media
                        .segments
                        .iter()
                        .all(|segment| segment.uri.starts_with("http"))
                );
            }
            Ok(Playlist::Master(master)) => prop_assert!(!master.tracks.is_empty()),
            Err(_) => {}
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(hls::parse(&bytes, BASE).is_err() || bytes.starts_with(b"#EXTM3U"));
            check_sanity(&[b"#EXTM3U\n".as_slice(), &bytes].concat())?;
        }

        #[test]
        fn no_lines_panic(lines in proptest::collection::vec(line(), 0..30)) {
            check_sanity(format!("#EXTM3U\n{}", lines.join("\n")).as_bytes())?;
        }

        #[test]
        fn every_playlist_goes_round(text in playlist()) {
            check_round_trip(&text);
        }

        /// However far the window has slid, a peer lists what the origin lists.
        #[test]
        fn every_window_goes_round(text in playlist(), window in 1u32..8) {
            let origin = media(&text);
            let (mut header, descriptors) = describe(&origin);
            header.window_segments = window;
            let rendered = media(&render(&header, &descriptors));
            let skip = origin.segments.len() - rendered.segments.len();
            prop_assert_eq!(rendered.segments.len(), origin.segments.len().min(window as usize));
            for (seen, told) in origin.segments[skip..].iter().zip(&rendered.segments) {
                prop_assert_eq!(seen.sequence, told.sequence);
                prop_assert_eq!(seen.discontinuity_sequence, told.discontinuity_sequence);
                let dates = (seen.program_date_time_ms, told.program_date_time_ms);
                // A date that was derived from one that was rounded may be off by what was.
                prop_assert!(match dates {
                    (Some(seen), Some(told)) => seen.abs_diff(told) <= 1,
                    (seen, told) => seen == told,
                }, "{dates:?}");
                prop_assert_eq!(&seen.key_lines, &told.key_lines);
                prop_assert_eq!(seen.init.is_some(), told.init.is_some());
                let own = |segment: &Segment| segment.lines.iter()
                    .filter(|line| !line.starts_with("#EXT-X-PROGRAM-DATE-TIME")).cloned().collect::<Vec<_>>();
                prop_assert_eq!(own(seen), own(told));
            }
        }
    }
}
