//! The Raft groups that hold the orchestrator's state: what production and the simulator share.
//!
//! Everything here is generic over openraft's runtime, over the replicated state ([`Replica`]) and over
//! where snapshots lie ([`SnapshotStore`]); network and log storage are given from outside. Pure
//! engines decide when a lost leader is replaced early ([`reset`]) and which leader moves where
//! ([`balance`]).
//!
//! Not here: channels, sockets, disks, actors.

pub mod balance;
mod errors;
mod group;
mod inbound;
mod keeper;
mod leadership;
mod machine;
mod membership;
pub mod memory;
mod replica;
pub mod reset;
mod settings;
mod shelf;
mod snapshots;
mod states;
mod status;
mod types;

pub use errors::{MembershipError, ProposeError, ReadError, StartError, Stopped};
pub use group::{Group, Placement, Ticket};
pub use inbound::{Appends, Inbound};
pub use leadership::Leadership;
pub use machine::{Builder, Machine};
pub use replica::{Halt, Replica};
pub use settings::{MAX_COMMAND, PAYLOAD_ENTRIES, Settings};
pub use shelf::{decode_meta, encode_meta};
pub use snapshots::{SnapshotFile, SnapshotStore};
pub use status::GroupStatus;
pub use types::{
    Answer, Command, GroupId, LogId, LogPosition, NodeId, NodeInfo, SnapshotMeta, StoredMembership,
    Types, Vote,
};
