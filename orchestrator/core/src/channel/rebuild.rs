//! A new owner's engine, from the replicated records: everybody where they were, and nobody attached.
//!
//! Nothing is decided here. Peers are told nothing until their gateways attach them, and then only what
//! they lack; nobody's absence counts before [`crate::ChannelEvent::AbsenceCounts`].

use core::time::Duration;

use super::entry::content;
use super::{ChannelEngine, whole_millis};
use crate::dispatch::{Dispatch, Since, Told};
use crate::forest::Forest;
use crate::ids::{Generation, PeerId, TrackName};
use crate::policy::Policy;
use crate::state::{ChannelState, LogPosition, PeerRecord};
use crate::{ChannelConfig, TrackIndex};

impl ChannelEngine {
    /// Makes the engine of the owner of this term. The state must be that at, or after, the term's first
    /// entry: what earlier owners decided is then all in it.
    ///
    /// The shell's clock may be any that does not go back; the channel's time goes on at the state's. The
    /// state's policy is the one that was planned with: tell the engine the one that is wanted.
    pub fn from_state(state: &ChannelState, term: u64, now: Duration) -> Self {
        let config = ChannelConfig {
            policy: Policy::default(),
            incarnation: state.incarnation(),
            term,
            recovering: false,
        };
        let time = whole_millis(now).max(state.time());
        let forest = Forest::restore(state, time);
        let dispatch = Dispatch::restore(told(state, &forest));
        let mut engine = Self {
            now: time,
            ahead: time.saturating_sub(now),
            forest,
            dispatch,
            suspects: state.suspects().clone(),
            tracks: state.tracks().to_vec(),
            ..Self::new(config, now)
        };
        engine.heed_suspects();
        engine
    }

    /// Makes what is said of the suspects hold. It does already, but for rules that have changed.
    fn heed_suspects(&mut self) {
        let concerned: Vec<PeerId> = self.suspects.concerned().collect();
        for peer in concerned {
            self.apply_record(peer);
        }
    }
}

/// What each peer was told: what is planned for it, as of the entry that last changed it.
fn told<'a>(
    state: &'a ChannelState,
    forest: &'a Forest,
) -> impl Iterator<Item = (PeerId, Told)> + 'a {
    let incarnation = state.incarnation();
    let generation = move |at: LogPosition| Generation {
        incarnation,
        term: at.term,
        index: at.index,
    };
    let known = state.peers().zip(forest.peers().values());
    // Who is not where its record says is told so with the next entry.
    let known = known.filter(|((id, _), _)| !forest.is_touched(*id));
    known.filter_map(move |((id, record), peer)| {
        let told = Told {
            generation: generation(record.told?),
            content: content(forest, *peer),
            sources: sources(record, forest, generation),
        };
        Some((id, told))
    })
}

fn sources(
    record: &PeerRecord,
    forest: &Forest,
    generation: impl Fn(LogPosition) -> Generation,
) -> Vec<(TrackName, Since)> {
    let name = |track: TrackIndex| Some(forest.trees().get(&track)?.name.clone());
    let sources = record.edges.iter().filter_map(|edge| {
        let since = Since::Generation(generation(edge.since));
        Some((name(edge.track)?, since))
    });
    sources.collect()
}
