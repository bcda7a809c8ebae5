//! One channel's replicated state: what a new owner's planner is rebuilt from.
//!
//! Invariants: `apply` is total and deterministic, and takes an entry whole or not at all; an entry that is
//! built on one that the log did not take is not taken either; each edge's
//! peer is there, and its track was when it was decided; a clone is cheap and stays as it is. Whether
//! edges form a cycle is not looked at: whoever rebuilds from the records must bear with any of them.
//!
//! Nothing is decided here. What depends on time (partings that end) depends on the entries' times.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cow_map::CowMap;
use super::entry::{DecidedEdge, ENTRY_VERSION, Edge, Entry, Offer, Telling, TrackRecord};
use super::hash::{Kind, StateHash};
use super::outcome::{LogPosition, Outcome, Refusal};
use crate::ids::{PeerId, Source, TrackIndex};
use crate::pairs::Pairs;
use crate::policy::Policy;
use crate::suspects::{SuspectRecord, Suspects};

/// Tracks that a channel may have.
const MOST_TRACKS: usize = 1024;

/// One channel's replicated state.
#[derive(Debug, Clone)]
pub struct ChannelState {
    pub(super) head: ChannelHead,
    peers: CowMap<PeerId, PeerRecord>,
    pairs: Arc<Pairs>,
    suspects: Arc<Suspects>,
    /// Of the peers, the pairs and the suspects.
    hash: StateHash,
}

/// What a channel has once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChannelHead {
    pub(super) incarnation: u64,
    pub(super) entries: u64,
    #[serde(with = "super::codec::millis")]
    pub(super) time: Duration,
    pub(super) policy: Policy,
    pub(super) tracks: Vec<TrackRecord>,
}

/// One peer of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// What it is willing to do and wants.
    pub offer: Offer,
    /// What it was told last; `None`: it was never told anything.
    pub told: Option<Told>,
    /// Its places in the trees, ordered by track, then stripe.
    pub edges: Vec<EdgeRecord>,
}

/// What a peer was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The place of the entry that said so.
    pub at: LogPosition,
    /// Of the assignment.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
}

/// A peer's place in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    /// In which track's.
    pub track: TrackIndex,
    /// Of which stripe.
    pub stripe: u8,
    /// Where it is.
    pub edge: Edge,
    /// The place of the entry that last changed its source.
    pub since: LogPosition,
}

impl ChannelState {
    /// Makes the state of a channel without tracks and peers.
    pub fn new(incarnation: u64, policy: Policy) -> Self {
        Self::with_head(ChannelHead {
            incarnation,
            entries: 0,
            time: Duration::ZERO,
            policy,
            tracks: Vec::new(),
        })
    }

    pub(super) fn with_head(head: ChannelHead) -> Self {
        Self {
            head,
            peers: CowMap::default(),
            pairs: Arc::default(),
            suspects: Arc::default(),
            hash: StateHash::default(),
        }
    }

    /// Returns what tells this state from others that do not descend from it.
    pub fn incarnation(&self) -> u64 {
        self.head.incarnation
    }

    /// Returns how many entries have become part of the state.
    pub fn entries(&self) -> u64 {
        self.head.entries
    }

    /// Returns the channel's time: that of its newest entry.
    pub fn time(&self) -> Duration {
        self.head.time
    }

    /// Returns the policy that the edges were planned with.
    pub fn policy(&self) -> &Policy {
        &self.head.policy
    }

    /// Returns the tracks that are planned for.
    pub fn tracks(&self) -> &[TrackRecord] {
        &self.head.tracks
    }

    /// Returns a peer's record.
    pub fn peer(&self, peer: PeerId) -> Option<&PeerRecord> {
        self.peers.get(&peer)
    }

    /// Returns how many peers there are.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Walks through all peers in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &PeerRecord)> {
        self.peers.iter().map(|(peer, record)| (*peer, record))
    }

    pub(crate) fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    pub(crate) fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// Returns the hash of all of it: equal on two replicas if and, accidents aside, only if they are.
    pub fn hash(&self) -> StateHash {
        let mut hash = StateHash::of(Kind::Channel, &self.head);
        hash.add(self.hash);
        hash
    }

    /// Takes in an entry that is committed at this place, whole or not at all.
    pub fn apply(&mut self, entry: &Entry, at: LogPosition) -> Outcome {
        let checked = self.check(entry);
        if checked.is_ok() {
            self.note(entry, at);
        }
        checked.into()
    }

    fn check(&self, entry: &Entry) -> Result<(), Refusal> {
        if entry.version != ENTRY_VERSION {
            return Err(Refusal::Version(entry.version));
        }
        if entry.incarnation != self.head.incarnation {
            return Err(Refusal::Incarnation);
        }
        let here = self.head.entries;
        if let Some(follows) = entry.follows.filter(|follows| *follows != here) {
            return Err(Refusal::Gap { follows, here });
        }
        if entry
            .policy
            .as_ref()
            .is_some_and(|policy| !policy.is_workable())
        {
            return Err(Refusal::Policy);
        }
        if let Some(tracks) = &entry.tracks {
            check_tracks(tracks)?;
        }
        let members = Members {
            state: self,
            left: entry.left.iter().copied().collect(),
            joined: entry.peers.iter().map(|peer| peer.peer).collect(),
        };
        let tracks = entry.tracks.as_ref().unwrap_or(&self.head.tracks);
        for edge in &entry.edges {
            check_edge(edge, &members, tracks)?;
        }
        let same = entry
            .parted
            .iter()
            .find(|parted| parted.one == parted.other);
        if let Some(parted) = same {
            return Err(Refusal::OwnNeighbour(parted.one));
        }
        let mut told = entry.told.iter();
        told.try_for_each(|telling| members.check(telling.peer))
    }

    /// Changes everything that the entry, which has been checked, says.
    fn note(&mut self, entry: &Entry, at: LogPosition) {
        self.head.entries += 1;
        self.head.time = self.head.time.max(entry.time);
        if let Some(policy) = &entry.policy {
            self.head.policy = Policy::clone(policy);
        }
        if let Some(tracks) = &entry.tracks {
            self.head.tracks.clone_from(tracks);
        }
        self.note_peers(entry, at);
        self.note_pairs(entry);
        self.note_accusations(entry);
    }

    fn note_peers(&mut self, entry: &Entry, at: LogPosition) {
        let joined = entry.peers.iter().map(|peer| peer.peer);
        let linked = entry.edges.iter().map(|edge| edge.peer);
        let told = entry.told.iter().map(|telling| telling.peer);
        let left = entry.left.iter().copied();
        let touched: BTreeSet<PeerId> = left.chain(joined).chain(linked).chain(told).collect();
        for peer in &touched {
            if let Some(record) = self.peers.get(peer) {
                self.hash.remove(hash_of_peer(*peer, record));
            }
        }
        for peer in &entry.left {
            self.peers.remove(peer);
        }
        for joined in &entry.peers {
            self.note_offer(joined.peer, &joined.record);
        }
        for edge in &entry.edges {
            if let Some(record) = self.peers.get_mut(&edge.peer) {
                record.note_edge(edge, at);
            }
        }
        for Telling { peer, digest } in entry.told.iter().copied() {
            if let Some(record) = self.peers.get_mut(&peer) {
                record.told = Some(Told { at, digest });
            }
        }
        for peer in &touched {
            if let Some(record) = self.peers.get(peer) {
                self.hash.add(hash_of_peer(*peer, record));
            }
        }
    }

    fn note_offer(&mut self, peer: PeerId, offer: &Offer) {
        if let Some(record) = self.peers.get_mut(&peer) {
            record.offer.clone_from(offer);
            return;
        }
        let (told, edges) = (None, Vec::new());
        let offer = offer.clone();
        self.peers.insert(peer, PeerRecord { offer, told, edges });
    }

    /// Adds a peer that a snapshot has, or puts it in the place of what it was.
    pub(super) fn put_peer(&mut self, peer: PeerId, record: PeerRecord) {
        self.hash.add(hash_of_peer(peer, &record));
        if let Some(old) = self.peers.insert(peer, record) {
            self.hash.remove(hash_of_peer(peer, &old));
        }
    }

    fn note_pairs(&mut self, entry: &Entry) {
        let over = self.pairs.next_timeout().is_some_and(|at| at <= entry.time);
        if entry.parted.is_empty() && !over {
            return;
        }
        let pairs = Arc::make_mut(&mut self.pairs);
        let removed = pairs.expire(entry.time);
        for (pair, until) in removed {
            self.hash
                .remove(StateHash::of(Kind::Parting, &(pair, millis(until))));
        }
        for parted in &entry.parted {
            self.put_parting(parted.one, parted.other, parted.until);
        }
    }

    pub(super) fn put_parting(&mut self, one: PeerId, other: PeerId, until: Duration) {
        let changed = Arc::make_mut(&mut self.pairs).part(one, other, until);
        for (pair, until) in changed.removed() {
            self.hash
                .remove(StateHash::of(Kind::Parting, &(pair, millis(until))));
        }
        if let Some((pair, until)) = changed.added {
            self.hash
                .add(StateHash::of(Kind::Parting, &(pair, millis(until))));
        }
    }

    fn note_accusations(&mut self, entry: &Entry) {
        for accusation in &entry.accusations {
            let (accuser, suspect) = (accusation.accuser, accusation.suspect);
            self.change_suspect(suspect, |suspects| {
                suspects.note(accuser, suspect, entry.time);
            });
        }
        for peer in &entry.forgotten {
            self.change_suspect(*peer, |suspects| suspects.forget(*peer));
        }
    }

    pub(super) fn put_suspect(&mut self, peer: PeerId, record: SuspectRecord) {
        self.change_suspect(peer, |suspects| suspects.restore(peer, record));
    }

    fn change_suspect(&mut self, peer: PeerId, change: impl FnOnce(&mut Suspects)) {
        let suspects = Arc::make_mut(&mut self.suspects);
        if let Some(record) = suspects.record(peer) {
            self.hash
                .remove(StateHash::of(Kind::Suspect, &(peer, record)));
        }
        change(suspects);
        if let Some(record) = suspects.record(peer) {
            self.hash.add(StateHash::of(Kind::Suspect, &(peer, record)));
        }
    }
}

impl PeerRecord {
    fn note_edge(&mut self, decided: &DecidedEdge, at: LogPosition) {
        let key = (decided.track, decided.stripe);
        let found = self
            .edges
            .binary_search_by_key(&key, |known| (known.track, known.stripe));
        let Some(edge) = decided.edge else {
            if let Ok(known) = found {
                self.edges.remove(known);
            }
            return;
        };
        let (track, stripe) = key;
        let mut record = EdgeRecord {
            track,
            stripe,
            edge,
            since: at,
        };
        match found {
            Ok(known) => {
                let known = &mut self.edges[known];
                if known.edge.source == edge.source {
                    record.since = known.since;
                }
                *known = record;
            }
            Err(place) => self.edges.insert(place, record),
        }
    }
}

/// Who is in the channel when an entry's edges are noted.
struct Members<'a> {
    state: &'a ChannelState,
    left: BTreeSet<PeerId>,
    joined: BTreeSet<PeerId>,
}

impl Members<'_> {
    fn check(&self, peer: PeerId) -> Result<(), Refusal> {
        let stays = || !self.left.contains(&peer) && self.state.peers.contains(&peer);
        if self.joined.contains(&peer) || stays() {
            Ok(())
        } else {
            Err(Refusal::UnknownPeer(peer))
        }
    }
}

fn check_edge(
    decided: &DecidedEdge,
    members: &Members<'_>,
    tracks: &[TrackRecord],
) -> Result<(), Refusal> {
    let Some(edge) = &decided.edge else {
        return Ok(());
    };
    members.check(decided.peer)?;
    if !tracks.iter().any(|track| track.index == decided.track) {
        return Err(Refusal::UnknownTrack(decided.track));
    }
    let sources = [Some(edge.source), edge.moving_from].into_iter().flatten();
    let parents = sources.filter_map(|source| match source {
        Source::Peer(parent) => Some(parent),
        Source::Cdn => None,
    });
    for neighbour in parents.chain(edge.successor) {
        members.check(neighbour)?;
        if neighbour == decided.peer {
            return Err(Refusal::OwnNeighbour(neighbour));
        }
    }
    Ok(())
}

fn check_tracks(tracks: &[TrackRecord]) -> Result<(), Refusal> {
    let indices: BTreeSet<_> = tracks.iter().map(|track| track.index).collect();
    let names: BTreeSet<_> = tracks.iter().map(|track| &track.name).collect();
    let apart = indices.len() == tracks.len() && names.len() == tracks.len();
    if apart && tracks.len() <= MOST_TRACKS {
        Ok(())
    } else {
        Err(Refusal::Tracks)
    }
}

fn hash_of_peer(peer: PeerId, record: &PeerRecord) -> StateHash {
    StateHash::of(Kind::Peer, &(peer, record))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
