//! The part of the node that owns shards: it runs their channels' actors while it leads, and takes in what
//! gateways say.
//!
//! Invariants: an actor runs only between the moment when everything before this node's term is applied and
//! the moment when the node must assume that it leads no more; streams are taken in only once every actor of
//! the shard runs, and all of them are cut when the shard is taken up anew, so that gateways say everything
//! again.

mod posts;
mod reception;
mod shard;

pub(crate) use shard::{Owned, ShardOwner};
