//! Watches an origin, signs its objects and serves their descriptors.
//!
//! Purpose: turn an HLS origin into a feed of signed statements ([`Signer`]), or mirror the feed of a
//! signer elsewhere ([`RemoteSigner`]). Both give a [`SignerHandle`], so a host does not care which
//! it has, and [`StatementService`] serves either over gRPC.
//!
//! Invariant: each object is downloaded once per channel, and the statements of one track leave in
//! the order of their keys.
//! Invariant: what a restart needs to go on with equal bytes is in [`SignerState`], which the host
//! stores.
//!
//! Trees, peers and placements are unknown here.

mod convert;
mod feed;
mod fetch;
mod handle;
mod inits;
mod master;
mod names;
mod numbering;
mod pipeline;
mod remote;
mod rhythm;
mod service;
mod signer;
mod state;
mod status;
pub mod store;
mod track;
mod watcher;
#[cfg(test)]
mod watcher_tests;
mod window;

pub use convert::{FeedMessageError, from_message};
pub use feed::{FeedError, FeedEvent, StatementFeed, Subscription};
pub use handle::SignerHandle;
pub use remote::{RemoteConfig, RemoteError, RemoteInfo, RemoteSigner};
pub use service::{ServiceLimits, SignerLookup, StatementService};
pub use signer::{Signer, SignerConfig, StartError};
pub use state::{InitState, MasterState, SegmentState, SignerState, TrackState};
pub use status::{Announcement, OriginState, OriginStatus, SignerStatus, TrackStatus};
pub use window::{Inserted, MAX_WINDOW, StatementWindow};
