//! Just enough of a media playlist's grammar to follow it as a player does.
//!
//! It is deliberately not the parser under test.

/// One listed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its media sequence number.
    pub sequence: u64,
    /// Its URI, as written.
    pub uri: String,
    /// The URI of the init section in force, as written.
    pub init: Option<String>,
    /// Its `EXTINF` in milliseconds.
    pub duration_ms: u64,
    /// Whether `EXT-X-PROGRAM-DATE-TIME` stands before it.
    pub dated: bool,
    /// Whether `EXT-X-DISCONTINUITY` stands before it.
    pub discontinuity: bool,
}

/// What a media playlist says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playlist {
    /// The segments, oldest first.
    pub segments: Vec<Listed>,
    /// Whether `EXT-X-ENDLIST` was written.
    pub ended: bool,
}

/// Reads a media playlist; `None` if it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Playlist> {
    let mut lines = text.lines().map(str::trim);
    if lines.next() != Some("#EXTM3U") {
        return None;
    }
    let mut playlist = Playlist::default();
    let mut sequence = 0;
    let mut init = None;
    let (mut duration_ms, mut dated, mut discontinuity) = (0, false, false);
    for line in lines.filter(|line| !line.is_empty()) {
        if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            sequence = value.parse().ok()?;
        } else if let Some(value) = line.strip_prefix("#EXTINF:") {
            duration_ms = milliseconds(value.split(',').next()?)?;
        } else if let Some(attributes) = line.strip_prefix("#EXT-X-MAP:") {
            let (_, rest) = attributes.split_once("URI=\"")?;
            init = Some(rest.split('"').next()?.to_owned());
        } else if line.starts_with("#EXT-X-PROGRAM-DATE-TIME:") {
            dated = true;
        } else if line == "#EXT-X-DISCONTINUITY" {
            discontinuity = true;
        } else if line == "#EXT-X-ENDLIST" {
            playlist.ended = true;
        } else if !line.starts_with('#') {
            let uri = line.to_owned();
            let init = init.clone();
            playlist.segments.push(Listed {
                sequence,
                uri,
                init,
                duration_ms,
                dated,
                discontinuity,
            });
            sequence += 1;
            (duration_ms, dated, discontinuity) = (0, false, false);
        }
    }
    Some(playlist)
}

/// "2.000000" → 2000, without floats.
fn milliseconds(seconds: &str) -> Option<u64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + digits.parse::<u64>().ok()?)
}

/// The media playlists that a master playlist names, in its order; empty if it is not a master.
#[must_use]
pub fn variants(text: &str) -> Vec<String> {
    let mut after_variant = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if after_variant && !line.starts_with('#') {
            found.push(line.to_owned());
        }
        after_variant = line.starts_with("#EXT-X-STREAM-INF:");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Listed, Playlist, parse, variants};

    #[test]
    fn reads_what_a_player_needs() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:41\n\
                    #EXT-X-MAP:URI=\"1-41-init.mp4\"\n#EXTINF:2.000000,\n\
                    #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000+0000\n1-41.m4s\n\
                    #EXT-X-DISCONTINUITY\n#EXTINF:1.96,\n1-42.m4s\n#EXT-X-ENDLIST\n";
        let segment = |sequence, uri: &str, duration_ms, dated, discontinuity| Listed {
            sequence,
            uri: uri.to_owned(),
            init: Some("1-41-init.mp4".to_owned()),
            duration_ms,
            dated,
            discontinuity,
        };
        let segments = vec![
            segment(41, "1-41.m4s", 2000, true, false),
            segment(42, "1-42.m4s", 1960, false, true),
        ];
        assert_eq!(
            parse(text),
            Some(Playlist {
                segments,
                ended: true
            })
        );
    }

    #[test]
    fn refuses_what_is_no_playlist() {
        for text in [
            "",
            "<html>",
            "#EXTM3U\n#EXTINF:abc,\na.ts",
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:-1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn reads_the_variants_of_a_master() {
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/index.m3u8\n\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=2\nv1/index.m3u8\n";
        assert_eq!(variants(text), ["v0/index.m3u8", "v1/index.m3u8"]);
        assert!(variants("#EXTM3U\n#EXTINF:2,\na.ts").is_empty());
    }
}
