//! The planner, the channel state machine, the session table and the dispatch of effects: pure and
//! deterministic.
//!
//! A shell owns one [`ChannelEngine`] a channel. It translates what peers say into [`ChannelEvent`]s,
//! hands them over together with the time, drains [`ChannelEngine::poll_command`], and calls again
//! with [`ChannelEvent::Tick`] at [`ChannelEngine::poll_timeout`]. Time is a [`core::time::Duration`]
//! since an arbitrary start and never goes back.
//!
//! Invariant: the same events at the same times give the same commands. There is no clock, no
//! randomness, no float and no hash-map order in here.

mod audience;
mod channel;
mod check;
mod commands;
mod dispatch;
mod events;
mod forest;
mod id_map;
mod ids;
pub mod link;
mod pairs;
pub mod planner;
mod policy;
mod profile;
mod recovery;
mod sessions;
pub mod state;
mod suspects;
mod upload;
mod view;
mod what_if;

pub use audience::Audience;
pub use channel::{ChannelConfig, ChannelEngine};
pub use commands::{Alarm, Assignment, CdnLease, ChannelCommand, ChildAssignment, TrackAssignment};
pub use events::{
    ChannelEvent, HeldEdge, LinkReport, LinkState, PeerReport, PeerRole, SessionOpened,
    SourceReport, SourceState, TrackInfo,
};
pub use ids::{
    ChannelId, Generation, IdError, NodeId, PeerId, ShardId, Source, TrackIndex, TrackName,
};
pub use policy::{
    Policy, PolicyDraft, PolicyError, PolicyMistake, Privacy, RegionBudget, SiteRule, SiteTable,
};
pub use profile::{DeviceClass, Locality, NatClass, PeerProfile, region_from, region_name};
pub use view::{Finding, NodeState, NodeView, Suspect};
pub use what_if::{PlanFigures, WhatIf, what_if};

#[cfg(test)]
mod tests;
