//! The replicated state: what survives a node, and how it changes.
//!
//! ```text
//!   ShardEntry ──encode──► log ──decode──► ShardState::apply ──► Outcome for each operation
//!     └ ShardOp::Decide{entry}                 └ ChannelState::apply
//!   MetaEntry  ──encode──► log ──decode──► MetaState::apply
//! ```
//!
//! Entries carry what was decided, so that replicas of different programs cannot come to different
//! ends. Invariants: `apply` is total and deterministic (equal entries at equal places give equal states
//! and equal hashes, on every machine); it refuses a bad operation whole; what it cannot read is an error
//! before anything changes, at which a group must stop; a clone costs next to nothing and stays as it is,
//! for snapshots.
//!
//! What is not in here: sessions, attachments, acknowledgements, counters, how a source does just now, who
//! is shunned for some seconds. Whoever becomes owner learns that anew.
//!
//! The limits and rules that `apply` uses are part of the entries' versions: another limit is another
//! version.

mod channel;
mod codec;
mod cow_map;
mod entry;
mod hash;
mod meta;
mod meta_entry;
mod meta_snapshot;
mod outcome;
mod sealed;
mod shard;
mod shard_snapshot;
mod snapshot;

pub use channel::{ChannelState, EdgeRecord, PeerRecord, Told};
pub(crate) use codec::millis;
pub use codec::{DecodeError, EntryTooLong, MOST_ENTRY_BYTES};
pub use entry::{
    Accusation, DecidedEdge, DecidedPeer, ENTRY_VERSION, Edge, Entry, Offer, Parting, Telling,
    TrackRecord,
};
pub use hash::StateHash;
pub use meta::{
    ChannelPhase, ClusterRecord, DirectoryRecord, Membership, MetaState, NodeAddresses, NodePhase,
    NodeRecord,
};
pub use meta_entry::{META_ENTRY_VERSION, MetaEntry, MetaOp};
pub use outcome::{LogPosition, Outcome, Refusal};
pub use sealed::{MOST_SEALED_BYTES, Sealed};
pub use shard::{
    ChannelSettings, Lifecycle, SHARD_ENTRY_VERSION, ShardChannel, ShardEntry, ShardOp, ShardState,
};
pub use snapshot::SnapshotError;

#[cfg(test)]
mod tests;
