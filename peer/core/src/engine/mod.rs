//! The relay engine's face: it routes events to the small engines and collects their commands.

use core::time::Duration;
use std::collections::VecDeque;

use crate::command::Command;
use crate::config::EngineConfig;
use crate::event::Event;
use crate::statistics::{Counters, Held, Snapshot};
use crate::{Generation, PlayoutStatistics};

/// Decides everything that a peer does with a channel's media.
#[derive(Debug)]
pub struct RelayEngine {
    config: EngineConfig,
    commands: VecDeque<Command>,
    generation: Generation,
    counters: Counters,
}

impl RelayEngine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            commands: VecDeque::new(),
            generation: Generation::default(),
            counters: Counters::default(),
        }
    }

    /// Takes note of what happened. Drain [`Self::poll_command`] afterwards.
    pub fn handle(&mut self, event: Event, now: Duration) {
        let _ = (event, now, &self.config);
    }

    /// Takes the next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`], on the clock of `now`. Ask again after
    /// each event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// What a session that is opened again must say.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            generation: self.generation,
            edges: Vec::new(),
        }
    }

    /// Everything that the outside may want to know, as of `now`.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let _ = now;
        Snapshot {
            generation: self.generation,
            counters: self.counters,
            playout: PlayoutStatistics::default(),
            tracks: Vec::new(),
            links: Vec::new(),
            ring_bytes: 0,
            first_tree_byte: None,
            first_cdn_byte: None,
        }
    }
}
