//! The planner as replicated records, and a planner from them: what a new owner does, for those who drive the
//! planner alone.
//!
//! Not in the records, as in production: who has a session, what a former owner was about to improve, and the
//! order of equally good places. So both planners have the same trees, and may decide differently afterwards.

use core::time::Duration;

use super::{PeerSlot, Planner, Work};
use crate::forest::Forest;
use crate::forest::node::{PeerRef, TreeKey};
use crate::ids::{ChannelId, PeerId};
use crate::policy::PolicyDraft;
use crate::state::{
    ChannelSettings, DecidedEdge, DecidedPeer, Entry, LogPosition, Offer, Parting, Sealed,
    ShardEntry, ShardOp, ShardState, SnapshotError,
};

const INCARNATION: u64 = 1;
const TERM: u64 = 1;

impl Planner {
    /// Returns the channel's replicated state as it would be if all that was planned were in the log.
    pub fn records(&self) -> ShardState {
        let policy = self.forest.policy.clone();
        let create = ShardOp::Create {
            channel: channel(),
            settings: settings(),
            policy,
        };
        let (channel, entry) = (channel(), self.entry());
        let mut shard = ShardState::default();
        for (index, op) in [create, ShardOp::Decide { channel, entry }]
            .into_iter()
            .enumerate()
        {
            let index = index as u64;
            let outcomes = shard.apply(
                &ShardEntry::new(TERM, vec![op]),
                LogPosition { term: TERM, index },
            );
            let taken = outcomes.iter().all(|outcome| outcome.is_applied());
            assert!(taken, "invariant: what was planned can be recorded");
        }
        shard
    }

    /// Writes [`Planner::records`] as production writes its snapshots.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = self.records().write_snapshot(&mut bytes);
        written.expect("invariant: memory takes everything");
        bytes
    }

    /// Makes a planner from what [`Planner::snapshot`] wrote.
    ///
    /// # Errors
    /// When it is none, or damaged.
    pub fn from_snapshot(bytes: &[u8], now: Duration) -> Result<Self, SnapshotError> {
        Ok(Self::from_records(&ShardState::read_snapshot(bytes)?, now))
    }

    /// Makes a planner from records: every edge as it was, and everybody with a session. Its slots are in the
    /// order of the peers' ids; see [`Planner::slot`].
    ///
    /// # Panics
    /// When the records are not those of a planner.
    pub fn from_records(records: &ShardState, now: Duration) -> Self {
        let known = records.channel(&channel());
        let known = known.expect("invariant: the records are a planner's");
        let mut forest = Forest::restore(&known.state, now);
        let peers: Vec<PeerRef> = forest.peers().into_iter().map(|(_, peer)| peer).collect();
        for peer in peers {
            forest.set_session(peer, true);
        }
        let mut planner = Self {
            forest,
            said: Vec::new(),
            gone: Vec::new(),
            now,
            work: Work::default(),
        };
        planner.say_all();
        planner
    }

    /// Returns a peer's slot.
    pub fn slot(&self, peer: PeerId) -> Option<PeerSlot> {
        self.forest.find(peer).map(|peer| PeerSlot(peer.0))
    }

    /// What holds already is no news.
    fn say_all(&mut self) {
        let mut known = Vec::new();
        for (_, peer) in self.forest.peers() {
            let nodes: Vec<_> = self.forest.nodes_of(peer).collect();
            for node in nodes {
                self.say(node, &mut known);
            }
        }
    }

    fn entry(&self) -> Entry {
        let forest = &self.forest;
        let mut entry = Entry {
            policy: Some(forest.policy.clone().into()),
            tracks: Some(forest.track_records()),
            ..Entry::new(INCARNATION, self.now)
        };
        for (id, peer) in forest.peers() {
            entry.peers.push(self.decided_peer(id, peer));
            for node in forest.nodes_of(peer) {
                let TreeKey { track, stripe } = forest.tree_of(node).key;
                let edge = forest.edge_of(node);
                entry.edges.push(DecidedEdge {
                    peer: id,
                    track,
                    stripe,
                    edge,
                });
            }
        }
        let parted = forest.pairs.iter();
        let parting = |((one, other), until)| Parting { one, other, until };
        entry.parted = parted.map(parting).collect();
        entry
    }

    fn decided_peer(&self, peer: PeerId, known: PeerRef) -> DecidedPeer {
        let record = self.forest.peer(known);
        DecidedPeer {
            peer,
            record: Offer {
                role: record.role,
                upload_bps: record.upload_bps,
                profile: record.profile,
                wanted: record.wanted.clone(),
                joined_at: record.joined_at,
            },
        }
    }
}

fn channel() -> ChannelId {
    "planner"
        .parse()
        .expect("invariant: a channel's id has letters")
}

fn settings() -> ChannelSettings {
    ChannelSettings {
        incarnation: INCARNATION,
        origin_uri: String::new(),
        signer_uri: None,
        policy: PolicyDraft::default(),
        create_time_ms: 0,
        etag: String::new(),
        signing: Sealed::default(),
    }
}
