//! A new owner's engine, from the replicated records: everybody where they were, and nobody attached.
//!
//! Nothing is decided here. Peers are told nothing until their gateways attach them, and then only what
//! they lack; nobody's absence counts before [`crate::ChannelEvent::AbsenceCounts`].

use core::time::Duration;

use super::{ChannelEngine, whole_millis};
use crate::ChannelConfig;
use crate::dispatch::{Dispatch, Since, SourceSince, ToldBefore};
use crate::forest::Forest;
use crate::ids::{Generation, PeerId};
use crate::policy::Policy;
use crate::state::{ChannelState, LogPosition, PeerRecord, TrackRecord};

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
            entries: state.entries(),
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

/// What each peer was told, but for those who are not where their records say: they are told so with the
/// next entry.
fn told<'a>(
    state: &'a ChannelState,
    forest: &'a Forest,
) -> impl Iterator<Item = (PeerId, ToldBefore)> + 'a {
    let incarnation = state.incarnation();
    let generation = move |at: LogPosition| Generation {
        incarnation,
        term: at.term,
        index: at.index,
    };
    let touched = forest.touched_peers();
    let known = state.peers().filter(move |(id, _)| !touched.contains(id));
    known.filter_map(move |(id, record)| {
        let told = record.told?;
        let told = ToldBefore {
            generation: generation(told.at),
            digest: told.digest,
            sources: sources(record, state.tracks(), generation),
        };
        Some((id, told))
    })
}

fn sources(
    record: &PeerRecord,
    tracks: &[TrackRecord],
    generation: impl Fn(LogPosition) -> Generation,
) -> Vec<SourceSince> {
    let name = |index| Some(&tracks.iter().find(|track| track.index == index)?.name);
    let mut sources = Vec::with_capacity(record.edges.len());
    sources.extend(record.edges.iter().filter_map(|known| {
        Some(SourceSince {
            track: name(known.track)?.clone(),
            stripe: known.stripe,
            source: known.edge.source,
            since: Since::Generation(generation(known.since)),
        })
    }));
    // As assignments are ordered.
    sources.sort_by(|one, other| (&one.track, one.stripe).cmp(&(&other.track, other.stripe)));
    sources
}
