//! The relay engine: what to ask, verify, serve, and when to fall back. Pure.
//!
//! ```text
//!   session, links, feed, CDN, player          links, CDN, feed, player, session
//!             │ Event, now                                   ▲ Command
//!             ▼                                              │
//!        handle() ──► RelayEngine ──► poll_command() ────────┘
//!                         └─────────► poll_timeout(): call handle(Timeout) then
//! ```
//!
//! A shell owns one [`RelayEngine`]: it translates what happens into [`Event`]s, calls
//! [`RelayEngine::handle`], then drains [`RelayEngine::poll_command`] and executes. Time is an argument:
//! a [`Duration`](core::time::Duration) since an arbitrary start, never running backwards.
//!
//! Invariant: no chunk is stored, published or relayed unless a statement signed by a trusted key
//! vouches for it; what is played unverified is published as such and never relayed.
//! Invariant: memory is bounded whatever peers, feed and CDN do.
//!
//! There is no socket, no clock, no randomness of its own and no task in here, and no HLS text.

mod cdn;
mod command;
mod config;
mod downstream;
mod engine;
mod event;
pub mod frame;
mod ids;
mod link;
mod liveness;
mod log;
mod object;
mod pacer;
mod playout;
mod ring;
mod statistics;
mod stripe;
mod track;
mod upstream;

pub use command::{
    Command, FetchRequest, LinkSide, LinkState, Provenance, Publication, SourceReport, SourceState,
};
pub use config::{EngineConfig, Role};
pub use engine::RelayEngine;
pub use event::{
    Assignment, CdnLease, ChildAssignment, Event, FeedEvent, FetchUpdate, LinkDown,
    TrackAssignment, Welcome,
};
pub use frame::OutgoingFrame;
pub use ids::{FetchId, Generation, InvalidPeerId, PeerId, Source, TrackName};
pub use liveness::{DEAD_AFTER, IDLE_PING_INTERVAL, PING_INTERVAL, RTT_INTERVAL, SILENT_AFTER};
pub use pacer::TokenBucket;
pub use statistics::{
    Counters, Held, HeldEdge, LinkSnapshot, PlayoutStatistics, Snapshot, TrackSnapshot,
};
