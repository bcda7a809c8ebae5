//! The part of the node that faces peers.
//!
//! A peer's session is a task that reads what the peer says, and a bounded queue of what it is told. The
//! [`Switchboard`] of a channel knows its sessions: it gives assignments and signals to the right one. The
//! [`Gate`] of a shard carries what peers say to whichever node owns the shard, and what that says back: a
//! session stays where it is when ownership moves.

mod admission;
mod attached;
mod gate;
mod line;
mod locality;
mod move_pace;
mod remote;
mod session;
mod signal_desk;
mod signal_posts;
mod switchboard;

pub(crate) use admission::Admission;
pub(crate) use attached::{Attached, Spoken, SpokenGuard};
pub(crate) use gate::Gate;
pub(crate) use line::{Closing, Line, Outgoing};
pub(crate) use locality::Locator;
pub(crate) use move_pace::MovePace;
pub(crate) use session::{Incoming, Session, SessionStart};
pub(crate) use signal_posts::SignalPosts;
pub(crate) use switchboard::{Joining, Switchboard, clock_ms};
