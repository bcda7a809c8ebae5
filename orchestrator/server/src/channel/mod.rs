//! A channel's owner: one actor round one engine, and the handle that the rest of the node talks to.
//!
//! The actor decides nothing. It gives the engine events with the time, carries out what comes back, and
//! makes a new engine when the old one panicked. Invariant: only the actor touches the engine, so events
//! are handled one at a time, in the order in which the mailbox took them.

mod actor;
mod arbiters;
mod attempt;
mod handle;
mod view;

pub(crate) use arbiters::Arbiters;
pub(crate) use handle::HandleError;
pub(crate) use handle::{ChannelHandle, Outlet, Start};
pub(crate) use view::{ChannelView, SuspectView};
