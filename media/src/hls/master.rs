//! A master playlist as the origin wrote it.

use std::collections::BTreeMap;

use super::PlaylistError;
use super::line::{Base, Line, LineKind, Tag};
use crate::limits::{MAX_MASTER_LEN, MAX_TRACKS};
use crate::statement::TrackKind;

/// A master playlist: the media playlists that it names, and its text with places for their URIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterPlaylist {
    /// The media playlists, variants first, each in the origin's order. One that is named twice is
    /// here once.
    pub tracks: Vec<DeclaredTrack>,
    text: Vec<Piece>,
}

/// A media playlist that a master playlist names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTrack {
    /// Absolute.
    pub uri: String,
    /// `BANDWIDTH`, the highest if it is named more than once; 0 for a rendition.
    pub bandwidth_bps: u64,
    /// What it is.
    pub kind: TrackKind,
    /// The rendition group that it belongs to; empty for a variant.
    pub group: String,
    /// The rendition groups that play beside it.
    pub plays_with: Vec<String>,
    /// `DEFAULT=YES`.
    pub default_rendition: bool,
}

/// A piece of the text: verbatim, or the place of a track's URI.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The track with this place in `tracks`.
    Uri(usize),
}

impl MasterPlaylist {
    /// Returns the text with each media playlist's URI replaced by `<name>/index.m3u8`; `names` are
    /// those of `tracks`, in their order.
    #[must_use]
    pub fn playlist(&self, names: &[&str]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Uri(track) => {
                format!(
                    "{}/index.m3u8",
                    names.get(*track).copied().unwrap_or_default()
                )
            }
        };
        self.text.iter().map(piece).collect()
    }
}

/// Reads a master playlist's lines.
pub(super) fn parse(lines: &[Line<'_>], base: &str) -> Result<MasterPlaylist, PlaylistError> {
    let mut parser = Parser::new(Base::new(base)?);
    for line in lines {
        match &line.kind {
            LineKind::Tag(tag) => parser.tag(tag)?,
            LineKind::Comment(text) => parser.text(text),
            LineKind::Uri(uri) => parser.uri(uri, line.number)?,
        }
    }
    parser.finish()
}

struct Parser {
    base: Base,
    tracks: Vec<DeclaredTrack>,
    text: Vec<Piece>,
    length: usize,
    /// The variant whose URI comes next.
    variant: Option<Variant>,
    /// A group that names the same playlists as an earlier one, and that earlier one.
    same_group: BTreeMap<String, String>,
}

struct Variant {
    bandwidth_bps: u64,
    plays_with: Vec<String>,
}

impl Parser {
    fn new(base: Base) -> Self {
        Self {
            base,
            tracks: Vec::new(),
            text: vec![Piece::Text("#EXTM3U\n".to_owned())],
            length: 0,
            variant: None,
            same_group: BTreeMap::new(),
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        match tag.name {
            "M3U" => {}
            "INF" | "-X-TARGETDURATION" | "-X-MEDIA-SEQUENCE" | "-X-ENDLIST" => {
                return Err(tag.malformed("a media playlist's tag in a master playlist"));
            }
            "-X-STREAM-INF" => self.stream_inf(tag)?,
            "-X-MEDIA" => self.media(tag)?,
            "-X-I-FRAME-STREAM-INF" | "-X-SESSION-KEY" | "-X-SESSION-DATA" => {
                self.text(&tag.with_absolute_uri("URI", &self.base)?);
            }
            "-X-CONTENT-STEERING" => {
                self.text(&tag.with_absolute_uri("SERVER-URI", &self.base)?);
            }
            _ => self.text(tag.text),
        }
        Ok(())
    }

    fn text(&mut self, line: &str) {
        self.length += line.len() + 1;
        self.text.push(Piece::Text(format!("{line}\n")));
    }

    fn stream_inf(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        let attributes = tag.attributes()?;
        let bandwidth = attributes.get("BANDWIDTH").map(str::parse);
        let plays_with = ["AUDIO", "VIDEO", "SUBTITLES"]
            .iter()
            .filter_map(|name| attributes.get(name).map(str::to_owned));
        self.variant = Some(Variant {
            bandwidth_bps: bandwidth
                .transpose()
                .map_err(|_| tag.malformed("BANDWIDTH"))?
                .unwrap_or(0),
            plays_with: plays_with.collect(),
        });
        self.text(tag.text);
        Ok(())
    }

    fn uri(&mut self, uri: &str, line: usize) -> Result<(), PlaylistError> {
        let Some(variant) = self.variant.take() else {
            return Err(PlaylistError::Malformed {
                line,
                what: "a URI without EXT-X-STREAM-INF",
            });
        };
        let track = self.track(self.base.resolve(uri, line)?)?;
        let declared = &mut self.tracks[track];
        declared.kind = TrackKind::Variant;
        declared.bandwidth_bps = declared.bandwidth_bps.max(variant.bandwidth_bps);
        for group in variant.plays_with {
            if !declared.plays_with.contains(&group) {
                declared.plays_with.push(group);
            }
        }
        self.text.push(Piece::Uri(track));
        self.text.push(Piece::Text("\n".to_owned()));
        Ok(())
    }

    fn media(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        let attributes = tag.attributes()?;
        let kind = match attributes.get("TYPE") {
            Some("AUDIO") => TrackKind::Audio,
            Some("VIDEO") => TrackKind::Video,
            Some("SUBTITLES") => TrackKind::Subtitles,
            _ => {
                self.text(tag.text);
                return Ok(());
            }
        };
        // Without a URI the rendition is inside the variants themselves.
        let Some(uri) = attributes.get("URI") else {
            self.text(tag.text);
            return Ok(());
        };
        let group = attributes
            .get("GROUP-ID")
            .ok_or_else(|| tag.malformed("GROUP-ID is missing"))?;
        let known = self.tracks.len();
        let track = self.track(self.base.resolve(uri, tag.number)?)?;
        let declared = &mut self.tracks[track];
        declared.default_rendition |= attributes.is_yes("DEFAULT");
        if track == known {
            declared.kind = kind;
        }
        if declared.group.is_empty() {
            declared.group = group.to_owned();
        } else if declared.group != group {
            self.same_group
                .entry(group.to_owned())
                .or_insert_with(|| declared.group.clone());
        }
        self.split_at_uri(tag, uri, track);
        Ok(())
    }

    /// Keeps a line with a place for the URI in its attribute.
    fn split_at_uri(&mut self, tag: &Tag<'_>, uri: &str, track: usize) {
        // A line holds no line feed, so it marks the place.
        let marked = tag.with_uri("URI", uri, "\n");
        let (before, after) = marked.split_once('\n').unwrap_or((&marked, ""));
        self.length += marked.len();
        self.text.push(Piece::Text(before.to_owned()));
        self.text.push(Piece::Uri(track));
        self.text.push(Piece::Text(format!("{after}\n")));
    }

    /// Finds or adds the track with this URI.
    fn track(&mut self, uri: String) -> Result<usize, PlaylistError> {
        if let Some(known) = self.tracks.iter().position(|track| track.uri == uri) {
            return Ok(known);
        }
        if self.tracks.len() >= MAX_TRACKS {
            return Err(PlaylistError::Exceeds("the number of media playlists"));
        }
        self.tracks.push(DeclaredTrack {
            uri,
            bandwidth_bps: 0,
            kind: TrackKind::Variant,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        });
        Ok(self.tracks.len() - 1)
    }

    fn finish(mut self) -> Result<MasterPlaylist, PlaylistError> {
        if self.length > MAX_MASTER_LEN - MAX_TRACKS * 64 {
            return Err(PlaylistError::Exceeds("the master playlist's length"));
        }
        if !self
            .tracks
            .iter()
            .any(|track| track.kind == TrackKind::Variant)
        {
            return Err(PlaylistError::Missing("a variant"));
        }
        for group in self
            .tracks
            .iter_mut()
            .flat_map(|track| &mut track.plays_with)
        {
            if let Some(same) = self.same_group.get(group) {
                group.clone_from(same);
            }
        }
        Ok(self.variants_first())
    }

    fn variants_first(self) -> MasterPlaylist {
        let mut order: Vec<usize> = (0..self.tracks.len()).collect();
        order.sort_by_key(|index| self.tracks[*index].kind != TrackKind::Variant);
        let place = |old: usize| order.iter().position(|index| *index == old).unwrap_or(old);
        let text = self.text.iter().map(|piece| match piece {
            Piece::Text(text) => Piece::Text(text.clone()),
            Piece::Uri(track) => Piece::Uri(place(*track)),
        });
        MasterPlaylist {
            text: text.collect(),
            tracks: order
                .iter()
                .map(|index| self.tracks[*index].clone())
                .collect(),
        }
    }
}
