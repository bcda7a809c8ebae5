//! HLS playlists: from the origin's text to segments, and from descriptors to a peer's text.
//!
//! Invariant: nothing that the origin wrote about a segment is lost on the way, but its URI.

mod media;

pub use media::{DeclaredInit, MediaPlaylist, PlaylistError, Segment};
