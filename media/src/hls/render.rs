//! A peer's playlists: the origin's lines again, only the URIs changed.
//!
//! What is left out are the tags that speak of the origin's server and not of the media (its
//! blocking reloads and parts), because another server answers now. What is added is one date, where
//! the origin's own has slid out of the window.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::date;
use crate::object::{ObjectKey, ObjectKind};
use crate::statement::{Descriptor, MasterHeader, TrackHeader};

/// Writes the master playlist; one that the origin does not have is made up round its one track.
#[must_use]
pub fn render_master(master: &MasterHeader) -> String {
    if !master.playlist.is_empty() {
        return master.playlist.clone();
    }
    let mut text = "#EXTM3U\n".to_owned();
    for track in &master.tracks {
        // BANDWIDTH must be there; with one variant nothing is chosen by it.
        let bandwidth = track.bandwidth_bps.max(1);
        text += &format!(
            "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth}\n{}/index.m3u8\n",
            track.name
        );
    }
    text
}

/// Writes a media playlist of the newest run of consecutive segments, at most as many as the origin
/// lists at once.
///
/// `descriptors` come in the order of their keys, all of one track; init sections are among them. A
/// segment whose init section is missing is not listed, nor any before it. `uri_for` is given an
/// object's key and file name extension.
#[must_use]
pub fn render_media_playlist<'a>(
    header: &TrackHeader,
    descriptors: impl IntoIterator<Item = &'a Descriptor>,
    uri_for: impl Fn(&ObjectKey, &str) -> String,
) -> String {
    let mut inits = BTreeMap::new();
    let mut segments: Vec<&Descriptor> = Vec::new();
    for descriptor in descriptors {
        match descriptor.key.kind {
            ObjectKind::Segment => segments.push(descriptor),
            ObjectKind::Init => {
                inits.insert(descriptor.key, descriptor);
            }
            ObjectKind::Part => {}
        }
    }
    let run = newest_run(&segments, &inits, header.window_segments);
    let mut writer = Writer {
        text: String::new(),
        keys: &[],
        init: None,
        uri_for,
    };
    writer.head(header, run);
    for (index, segment) in run.iter().enumerate() {
        let init = segment.init_key().and_then(|key| inits.get(&key).copied());
        writer.segment(segment, init, index == 0);
    }
    let last = run
        .last()
        .map(|segment| (segment.key.epoch, segment.key.sequence));
    if last.is_some() && last == header.end_sequence.map(|end| (header.epoch, end)) {
        writer.text += "#EXT-X-ENDLIST\n";
    }
    writer.text
}

/// Finds the longest run of consecutive segments of one epoch at the end.
fn newest_run<'s, 'a>(
    segments: &'s [&'a Descriptor],
    inits: &BTreeMap<ObjectKey, &Descriptor>,
    window_segments: u32,
) -> &'s [&'a Descriptor] {
    let usable = |segment: &Descriptor| {
        segment
            .init_key()
            .is_none_or(|init| inits.contains_key(&init))
    };
    let follows = |pair: &[&Descriptor]| {
        pair[0].key.epoch == pair[1].key.epoch
            && pair[0].key.sequence.checked_add(1) == Some(pair[1].key.sequence)
            && usable(pair[0])
    };
    if segments.last().is_none_or(|last| !usable(last)) {
        return &[];
    }
    let run = 1 + segments
        .windows(2)
        .rev()
        .take_while(|pair| follows(pair))
        .count();
    let window = match window_segments {
        0 => run,
        window => run.min(usize::try_from(window).unwrap_or(run)),
    };
    &segments[segments.len() - window..]
}

struct Writer<'a, F> {
    text: String,
    /// The key lines in force.
    keys: &'a [String],
    /// The init section in force.
    init: Option<ObjectKey>,
    uri_for: F,
}

impl<'a, F: Fn(&ObjectKey, &str) -> String> Writer<'a, F> {
    fn head(&mut self, header: &TrackHeader, run: &[&Descriptor]) {
        self.line("#EXTM3U");
        for line in &header.lines {
            if let Some(line) = playlist_line(line) {
                self.line(&line);
            }
        }
        let first = run.first();
        let sequence = first.map_or(header.from_sequence, |first| first.key.sequence);
        self.line(&format!("#EXT-X-MEDIA-SEQUENCE:{sequence}"));
        // A segment's number counts its own EXT-X-DISCONTINUITY, which is listed with it.
        let before = first.map_or(0, |first| {
            let own = first
                .lines
                .iter()
                .filter(|line| is_discontinuity(line))
                .count() as u64;
            first.discontinuity_sequence.saturating_sub(own)
        });
        if before > 0 {
            self.line(&format!("#EXT-X-DISCONTINUITY-SEQUENCE:{before}"));
        }
    }

    fn segment(&mut self, segment: &'a Descriptor, init: Option<&'a Descriptor>, first: bool) {
        // Keys and init sections come behind a discontinuity: players tie them to what it opens.
        let opening = segment
            .lines
            .iter()
            .rposition(|line| is_discontinuity(line));
        let (opening, own) = segment.lines.split_at(opening.map_or(0, |index| index + 1));
        opening.iter().for_each(|line| self.line(line));
        self.init(init);
        self.keys(&segment.key_lines);
        if let (true, Some(ms)) = (first, segment.program_date_time_ms)
            && !segment.lines.iter().any(|line| line.starts_with(DATE_TAG))
        {
            self.line(&format!("{DATE_TAG}{}", date::format(ms)));
        }
        own.iter().for_each(|line| self.line(line));
        let uri = (self.uri_for)(&segment.key, segment.ext());
        self.line(&uri);
    }

    fn init(&mut self, init: Option<&'a Descriptor>) {
        let Some(init) = init.filter(|init| self.init != Some(init.key)) else {
            return;
        };
        // An init section can be encrypted too: with the keys that were in force at its line.
        self.keys(&init.key_lines);
        let uri = (self.uri_for)(&init.key, init.ext());
        self.line(&format!("#EXT-X-MAP:URI=\"{uri}\""));
        self.init = Some(init.key);
    }

    fn keys(&mut self, keys: &'a [String]) {
        if self.keys == keys {
            return;
        }
        // The lines of a key format replace each other; one that is gone was ended by NONE.
        if self
            .keys
            .iter()
            .any(|line| !keys.iter().any(|new| key_format(new) == key_format(line)))
        {
            self.line("#EXT-X-KEY:METHOD=NONE");
        }
        keys.iter().for_each(|line| self.line(line));
        self.keys = keys;
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.text, "{line}");
    }
}

const DATE_TAG: &str = "#EXT-X-PROGRAM-DATE-TIME:";

fn is_discontinuity(line: &str) -> bool {
    line == "#EXT-X-DISCONTINUITY"
}

/// Returns the text of the `KEYFORMAT` attribute, empty if the line has none.
fn key_format(line: &str) -> &str {
    line.split_once("KEYFORMAT=\"")
        .and_then(|(_, rest)| rest.split('"').next())
        .filter(|format| *format != "identity")
        .unwrap_or_default()
}

/// Returns a playlist-wide line as a peer writes it: the server's own abilities are left out.
fn playlist_line(line: &str) -> Option<String> {
    if line.starts_with("#EXT-X-PART-INF") {
        return None;
    }
    let Some(attributes) = line.strip_prefix("#EXT-X-SERVER-CONTROL:") else {
        return Some(line.to_owned());
    };
    let hold_back = attributes
        .split(',')
        .find(|attribute| attribute.trim().starts_with("HOLD-BACK="))?;
    Some(format!("#EXT-X-SERVER-CONTROL:{}", hold_back.trim()))
}
