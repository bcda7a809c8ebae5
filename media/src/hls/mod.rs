//! HLS playlists: from the origin's text to segments, and from descriptors to a peer's text.
//!
//! Invariant: nothing that the origin wrote about a segment is lost on the way, but its URI.
//!
//! Reading uses quick-m3u8's line reader with every typed tag switched off, because that keeps each
//! line as it was written; its attribute lists are used where a value matters. Parts, preload hints
//! and rendition reports of low-latency playlists are left out: they point past the tree.

mod date;
mod line;
mod master;
mod media;
mod render;

pub use master::{DeclaredTrack, MasterPlaylist};
pub use media::{DeclaredInit, MediaPlaylist, Segment};
pub use render::{render_master, render_media_playlist};

/// Why a text is no playlist that can be relayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaylistError {
    /// It does not begin with `#EXTM3U`.
    #[error("it does not begin with #EXTM3U")]
    NotAPlaylist,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It exceeds a limit.
    #[error("{0} exceeds its limit")]
    Exceeds(&'static str),
    /// A line that must be there is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A line cannot be read.
    #[error("line {line}: {what}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is a master playlist where a media playlist was expected, or the other way round.
    #[error("it is a {0}")]
    WrongKind(&'static str),
    /// It uses something that cannot be relayed.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The URI that it was read from is not absolute.
    #[error("the playlist's own URI is not absolute")]
    Base,
}

/// A playlist of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Playlist {
    /// It lists media playlists.
    Master(MasterPlaylist),
    /// It lists segments.
    Media(MediaPlaylist),
}

/// Reads a playlist of either kind. `base` is the URI that it was read from, after redirects.
///
/// # Errors
/// [`PlaylistError`] says what is wrong with the text.
pub fn parse(body: &[u8], base: &str) -> Result<Playlist, PlaylistError> {
    let lines = line::read(body)?;
    if line::is_master(&lines) {
        master::parse(&lines, base).map(Playlist::Master)
    } else {
        media::parse(&lines, base).map(Playlist::Media)
    }
}

/// Reads a master playlist. `base` is the URI that it was read from, after redirects.
///
/// # Errors
/// [`PlaylistError`] says what is wrong with the text.
pub fn parse_master(body: &[u8], base: &str) -> Result<MasterPlaylist, PlaylistError> {
    match parse(body, base)? {
        Playlist::Master(master) => Ok(master),
        Playlist::Media(_) => Err(PlaylistError::WrongKind("media playlist")),
    }
}

/// Reads a media playlist. `base` is the URI that it was read from, after redirects.
///
/// # Errors
/// [`PlaylistError`] says what is wrong with the text.
pub fn parse_media_playlist(body: &[u8], base: &str) -> Result<MediaPlaylist, PlaylistError> {
    match parse(body, base)? {
        Playlist::Media(media) => Ok(media),
        Playlist::Master(_) => Err(PlaylistError::WrongKind("master playlist")),
    }
}
