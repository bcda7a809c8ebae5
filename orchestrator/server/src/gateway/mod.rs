//! The part of the node that faces peers.
//!
//! A peer's session is a task that reads what the peer says, and a bounded queue of what it is told. The
//! [`Switchboard`] of a channel knows its sessions: it gives assignments and signals to the right one, and
//! remembers what each peer was last told, for an engine that has to begin again.

mod admission;
mod line;
mod session;
mod signal_desk;
mod switchboard;

pub(crate) use admission::Admission;
pub(crate) use line::{Closing, Line, Outgoing};
pub(crate) use session::{Session, SessionStart};
pub(crate) use switchboard::{Opened, Switchboard};
