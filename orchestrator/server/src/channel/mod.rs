//! A channel's owner: one actor round one engine, and the handle that the rest of the node talks to.
//!
//! The actor decides nothing. It gives the engine events with the time, has what was decided kept in the
//! [`Log`], carries out what comes back, and makes a new engine when the old one panicked. Invariant: only
//! the actor touches the engine and the table of seats, so events are handled one at a time, in the order in
//! which the mailbox took them.

mod actor;
mod arbiters;
mod attempt;
mod clock;
mod flights;
mod handle;
mod log;
mod view;

pub(crate) use arbiters::Arbiters;
pub(crate) use handle::{ChannelHandle, FromGateway, HandleError, Outlet, Start};
#[cfg(test)]
pub(crate) use log::CommitFailed;
pub(crate) use log::{GroupLog, Log};
pub(crate) use view::{ChannelView, SuspectView};
