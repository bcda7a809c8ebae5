//! Playlists, objects, chunks, descriptors and their signatures.
//!
//! Purpose: everything that a signer, a peer and a node must agree on about media, in one place:
//! how an object is named and cut into chunks ([`ObjectKey`], [`ObjectHasher`]), what is said about
//! it and how that is trusted ([`Descriptor`], [`SignedStatement`], [`TrustedKeys`]), and how an HLS
//! playlist becomes such statements and a playlist again ([`hls`]).
//!
//! Invariant: a [`SignedStatement`] in hand has been verified (or was signed here), and its exact
//! bytes are kept, so that passing it on never re-encodes it.
//! Invariant: no input, from whomever, makes this crate panic or hold more than the [`limits`] allow.
//!
//! There is no socket, no clock, no task here, and no HTTP: callers fetch and callers decide when.

mod chunk;
mod codec;
pub mod hls;
mod key;
pub mod limits;
mod object;
mod signed;
mod statement;

pub use chunk::{ChunkError, ChunkHashes, HashedObject, ObjectHasher, ObjectTooLong, chunk_count};
pub use key::{KeyError, KeyId, PublicKey, StatementKey, TrustedKeys};
pub use limits::CHUNK_SIZE;
pub use object::{ByteRange, ChunkIndex, ObjectKey, ObjectKind, TrackIndex};
pub use signed::{SIGNING_DOMAIN, SignError, SignedStatement, StatementError};
pub use statement::{
    Descriptor, InvalidStatement, MasterHeader, Statement, Track, TrackHeader, TrackKind,
};
