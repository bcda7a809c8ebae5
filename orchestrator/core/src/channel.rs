//! The channel's state machine: events in, decided edges and assignments out.

use core::time::Duration;
use std::collections::VecDeque;

use crate::audience::Audience;
use crate::commands::ChannelCommand;
use crate::events::ChannelEvent;
use crate::ids::Generation;
use crate::policy::Policy;
use crate::view::{Finding, NodeView, Suspect};

/// What a channel's engine starts with.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// The owner's wishes.
    pub policy: Policy,
    /// Of the channel's state: see [`Generation`].
    pub incarnation: u64,
    /// Of the owner.
    pub term: u64,
    /// True when there may be peers that hold edges of an engine before this one: for a few seconds
    /// they are awaited and taken up as they are.
    pub recovering: bool,
}

/// One channel's trees, sessions and effects.
#[derive(Debug)]
pub struct ChannelEngine {
    commands: VecDeque<ChannelCommand>,
}

impl ChannelEngine {
    /// Makes the engine of a channel whose tracks are not known yet.
    pub fn new(config: ChannelConfig, now: Duration) -> Self {
        let _unused = (config, now);
        Self {
            commands: VecDeque::new(),
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: ChannelEvent, now: Duration) {
        let _unused = (event, now);
    }

    /// Returns the next thing to do.
    pub fn poll_command(&mut self) -> Option<ChannelCommand> {
        self.commands.pop_front()
    }

    /// Returns when [`ChannelEvent::Tick`] is due, in the time of `now`.
    pub fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// Returns the generation of the newest committed entry.
    pub fn generation(&self) -> Generation {
        Generation::default()
    }

    /// Returns every peer's place in every tree, ordered by peer, then track.
    pub fn topology(&self) -> Vec<NodeView> {
        Vec::new()
    }

    /// Verifies every invariant on the live state.
    pub fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Returns the audience's totals.
    pub fn audience(&self, now: Duration) -> Audience {
        let _unused = now;
        Audience::default()
    }

    /// Returns the peers that others accuse, ordered by id.
    pub fn suspects(&self) -> Vec<Suspect> {
        Vec::new()
    }
}
