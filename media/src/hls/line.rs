//! A playlist's lines, and the attributes and URIs in them.

use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::tag::{AttributeValue, TagValue};
use quick_m3u8::{HlsLine, Reader};
use url::Url;

use super::PlaylistError;
use crate::limits::{MAX_LINE_LEN, MAX_PLAYLIST_LEN, MAX_URI_LEN};

/// One line that says something.
pub(super) struct Line<'a> {
    /// Counted from 1, blank lines too.
    pub(super) number: usize,
    pub(super) kind: LineKind<'a>,
}

pub(super) enum LineKind<'a> {
    Tag(Tag<'a>),
    /// With its `#`.
    Comment(&'a str),
    Uri(&'a str),
}

/// A tag line.
#[derive(Clone, Copy)]
pub(super) struct Tag<'a> {
    /// What follows `#EXT`, up to the colon.
    pub(super) name: &'a str,
    /// The whole line, verbatim but for white space at its end.
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) number: usize,
    value: TagValue<'a>,
}

/// Splits a playlist into its lines, without `#EXTM3U` and blank ones.
pub(super) fn read(body: &[u8]) -> Result<Vec<Line<'_>>, PlaylistError> {
    if body.len() > MAX_PLAYLIST_LEN {
        return Err(PlaylistError::Exceeds("the playlist's length"));
    }
    let text = std::str::from_utf8(body).map_err(|_| PlaylistError::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()));
    if lines.next().is_none_or(|(_, line)| line != "#EXTM3U") {
        return Err(PlaylistError::NotAPlaylist);
    }
    lines
        .filter(|(_, text)| !text.is_empty())
        .map(|(number, text)| read_line(number, text))
        .collect()
}

fn read_line(number: usize, text: &str) -> Result<Line<'_>, PlaylistError> {
    let malformed = |what| PlaylistError::Malformed { line: number, what };
    if text.len() > MAX_LINE_LEN {
        return Err(malformed("it is too long"));
    }
    if text.contains('\r') {
        return Err(malformed("it has a carriage return inside"));
    }
    let options = ParsingOptionsBuilder::new().build();
    let kind = match Reader::from_str(text, options).read_line() {
        Ok(Some(HlsLine::UnknownTag(tag))) => LineKind::Tag(Tag {
            name: tag.name(),
            text,
            value: tag.value().unwrap_or(TagValue(b"")),
            number,
        }),
        // A bare "#EXT" is an error to the reader; to us it is a remark like any other.
        _ if text.starts_with('#') => LineKind::Comment(text),
        _ => LineKind::Uri(text.trim_start()),
    };
    Ok(Line { number, kind })
}

/// Whether these are the lines of a master playlist.
pub(super) fn is_master(lines: &[Line<'_>]) -> bool {
    lines.iter().any(|line| match &line.kind {
        LineKind::Tag(tag) => {
            matches!(
                tag.name,
                "-X-STREAM-INF" | "-X-I-FRAME-STREAM-INF" | "-X-MEDIA"
            )
        }
        LineKind::Comment(_) | LineKind::Uri(_) => false,
    })
}

impl<'a> Tag<'a> {
    pub(super) fn malformed(&self, what: &'static str) -> PlaylistError {
        PlaylistError::Malformed {
            line: self.number,
            what,
        }
    }

    /// Returns what follows the colon.
    pub(super) fn value(&self) -> &'a str {
        self.text.split_once(':').map_or("", |(_, value)| value)
    }

    pub(super) fn integer(&self) -> Result<u64, PlaylistError> {
        self.value
            .try_as_decimal_integer()
            .map_err(|_| self.malformed("not a number"))
    }

    /// Reads a number of seconds, up to a comma.
    pub(super) fn seconds(&self) -> Result<f64, PlaylistError> {
        let (seconds, _) = self
            .value
            .try_as_decimal_floating_point_with_title()
            .map_err(|_| self.malformed("not a duration"))?;
        if seconds.is_finite() && seconds >= 0.0 {
            Ok(seconds)
        } else {
            Err(self.malformed("not a duration"))
        }
    }

    /// Reads the attribute list.
    pub(super) fn attributes(&self) -> Result<Attributes<'a>, PlaylistError> {
        let list = self
            .value
            .try_as_ordered_attribute_list()
            .map_err(|_| self.malformed("its attributes cannot be read"))?;
        Ok(Attributes(list))
    }

    /// Returns the line with the value of its `URI` attribute (or another that holds a URI) replaced.
    pub(super) fn with_uri(&self, attribute: &str, old: &str, new: &str) -> String {
        let quoted = format!("{attribute}=\"{old}\"");
        let at = self
            .text
            .match_indices(&quoted)
            .map(|(at, _)| at)
            .find(|at| self.text[..*at].ends_with([':', ',', ' ']));
        let Some(at) = at else {
            return self.text.to_owned();
        };
        let rest = &self.text[at + quoted.len()..];
        format!("{}{attribute}=\"{new}\"{rest}", &self.text[..at])
    }

    /// Returns the line with the named attribute made absolute, if it has it.
    pub(super) fn with_absolute_uri(
        &self,
        attribute: &str,
        base: &Base,
    ) -> Result<String, PlaylistError> {
        let attributes = self.attributes()?;
        let Some(uri) = attributes.get(attribute) else {
            return Ok(self.text.to_owned());
        };
        let absolute = base
            .resolve_any(uri)
            .ok_or_else(|| self.malformed("not a URI"))?;
        Ok(self.with_uri(attribute, uri, &absolute))
    }
}

/// An attribute list.
pub(super) struct Attributes<'a>(Vec<(&'a str, AttributeValue<'a>)>);

impl<'a> Attributes<'a> {
    /// Returns an attribute's value, without its quotes.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(key, _)| key.trim() == name)?;
        match value {
            AttributeValue::Quoted(text) => Some(text),
            AttributeValue::Unquoted(value) => value.try_as_utf_8().ok(),
        }
    }

    /// Whether an attribute is `YES`.
    pub(super) fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }
}

/// What relative URIs are resolved against.
pub(super) struct Base(Url);

impl Base {
    pub(super) fn new(uri: &str) -> Result<Self, PlaylistError> {
        let url = Url::parse(uri).map_err(|_| PlaylistError::Base)?;
        if url.cannot_be_a_base() {
            Err(PlaylistError::Base)
        } else {
            Ok(Self(url))
        }
    }

    /// Resolves the URI of something to fetch: HTTP or HTTPS only.
    pub(super) fn resolve(&self, uri: &str, line: usize) -> Result<String, PlaylistError> {
        let malformed = |what| PlaylistError::Malformed { line, what };
        if uri.contains("{$") {
            return Err(PlaylistError::Unsupported("a variable in a URI"));
        }
        let url = self.0.join(uri).map_err(|_| malformed("not a URI"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(malformed("neither an HTTP nor an HTTPS URI"));
        }
        if url.as_str().len() > MAX_URI_LEN {
            return Err(malformed("the URI is too long"));
        }
        Ok(url.into())
    }

    /// Resolves a URI of any scheme. One that is absolute already stays as it is written: the forms
    /// of key systems (`skd:`, `data:`) are not ours to tidy.
    fn resolve_any(&self, uri: &str) -> Option<String> {
        if Url::parse(uri).is_ok() {
            return Some(uri.to_owned());
        }
        self.0.join(uri).ok().map(String::from)
    }
}
