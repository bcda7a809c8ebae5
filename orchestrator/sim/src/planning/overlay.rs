//! What can be driven: production's planner, the yardsticks, and one that plans nothing, by which the
//! simulator's own cost is measured.

use std::time::{Duration, Instant};

use espalier_orchestrator_core::TrackIndex;
use espalier_orchestrator_core::planner::{
    EdgeChange, Memory, Newcomer, PeerSlot, Planner, SourceSlot, TreeId, Work,
};
use espalier_orchestrator_core::state::ShardState;

/// One that decides who takes what from whom. The calls are [`Planner`]'s.
pub(crate) trait Overlay {
    fn join(&mut self, newcomer: Newcomer, now: Duration) -> PeerSlot;
    /// These are gone, and will leave in slices of their own.
    fn lose(&mut self, _: &[PeerSlot], _: Duration) {}

    fn leave(&mut self, peers: &[PeerSlot], now: Duration);
    fn arrived(&mut self, peer: PeerSlot, tree: TreeId, now: Duration);
    fn failed(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration);
    fn late(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration);
    fn set_upload(&mut self, peer: PeerSlot, upload_bps: u64, now: Duration);
    fn want(&mut self, peer: PeerSlot, track: espalier_orchestrator_core::TrackName, now: Duration);
    fn tick(&mut self, now: Duration);
    fn next_timeout(&self) -> Option<Duration>;
    fn take_changes(&mut self, into: &mut Vec<EdgeChange>);
    fn source(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot>;
    fn standby(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot>;
    /// Appends the peer's children.
    fn children(&self, peer: PeerSlot, tree: TreeId, into: &mut Vec<PeerSlot>);
    fn root_count(&self, tree: TreeId) -> u32;
    fn levels(&self, tree: TreeId) -> Vec<u32>;
    fn work(&self) -> Work;
    fn bytes(&self) -> Memory;
    fn findings(&self) -> Vec<String>;
    fn state_hash(&self) -> u64;

    /// Snapshot and rebuild, twice; `None`: it keeps no records.
    fn replay(&self, _now: Duration) -> Option<Replay> {
        None
    }
}

/// What came of a planner that was rebuilt from its snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    /// How long reading the snapshot took.
    pub(crate) read: Duration,
    /// How long making a planner from the records took.
    pub(crate) rebuilt: Duration,
    /// What did not hold.
    pub(crate) findings: Vec<String>,
}

impl Overlay for Planner {
    fn join(&mut self, newcomer: Newcomer, now: Duration) -> PeerSlot {
        Self::join(self, newcomer, now)
    }

    fn lose(&mut self, peers: &[PeerSlot], now: Duration) {
        Self::lose(self, peers, now);
    }

    fn leave(&mut self, peers: &[PeerSlot], now: Duration) {
        Self::leave(self, peers, now);
    }

    fn arrived(&mut self, peer: PeerSlot, tree: TreeId, now: Duration) {
        Self::arrived(self, peer, tree, now);
    }

    fn failed(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration) {
        Self::failed(self, child, parent, now);
    }

    fn late(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration) {
        Self::late(self, child, parent, now);
    }

    fn set_upload(&mut self, peer: PeerSlot, upload_bps: u64, now: Duration) {
        Self::set_upload(self, peer, upload_bps, now);
    }

    fn want(
        &mut self,
        peer: PeerSlot,
        track: espalier_orchestrator_core::TrackName,
        now: Duration,
    ) {
        Self::want(self, peer, vec![track], now);
    }

    fn tick(&mut self, now: Duration) {
        Self::tick(self, now);
    }

    fn next_timeout(&self) -> Option<Duration> {
        Self::next_timeout(self)
    }

    fn take_changes(&mut self, into: &mut Vec<EdgeChange>) {
        Self::take_changes(self, into);
    }

    fn source(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot> {
        Self::source(self, peer, tree)
    }

    fn standby(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot> {
        Self::standby(self, peer, tree)
    }

    fn children(&self, peer: PeerSlot, tree: TreeId, into: &mut Vec<PeerSlot>) {
        into.extend(Self::children(self, peer, tree));
    }

    fn root_count(&self, tree: TreeId) -> u32 {
        Self::root_count(self, tree)
    }

    fn levels(&self, tree: TreeId) -> Vec<u32> {
        Self::levels(self, tree)
    }

    fn work(&self) -> Work {
        Self::work(self)
    }

    fn bytes(&self) -> Memory {
        Self::bytes(self)
    }

    fn findings(&self) -> Vec<String> {
        let findings = self.check();
        findings
            .iter()
            .map(|finding| format!("{finding:?}"))
            .collect()
    }

    fn state_hash(&self) -> u64 {
        Self::state_hash(self)
    }

    fn replay(&self, now: Duration) -> Option<Replay> {
        Some(replay(self, now))
    }
}

fn replay(live: &Planner, now: Duration) -> Replay {
    let snapshot = live.snapshot();
    let started = Instant::now();
    let records = match ShardState::read_snapshot(&snapshot[..]) {
        Ok(records) => records,
        Err(error) => {
            return Replay {
                read: started.elapsed(),
                rebuilt: Duration::ZERO,
                findings: vec![format!("replay: {error}")],
            };
        }
    };
    let read = started.elapsed();
    let started = Instant::now();
    let one = Planner::from_records(&records, now);
    let rebuilt = started.elapsed();
    let other = Planner::from_records(&records, now);
    let mut findings: Vec<_> = one
        .check()
        .iter()
        .map(|finding| format!("replay: {finding:?}"))
        .collect();
    let hashes = [live, &one, &other].map(Planner::state_hash);
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        findings.push(format!("replay: other states after {now:?}: {hashes:x?}"));
    }
    Replay {
        read,
        rebuilt,
        findings,
    }
}

/// Plans nothing: the CDN feeds everyone. What a run with it costs is the simulator's share.
#[derive(Debug, Default)]
pub(crate) struct Nobody {
    /// Whether the slot is in use.
    slots: Vec<bool>,
    free: Vec<u32>,
    changes: Vec<EdgeChange>,
    here: u32,
}

const ONLY: TreeId = TreeId {
    track: TrackIndex(0),
    stripe: 0,
};

impl Overlay for Nobody {
    fn join(&mut self, _: Newcomer, _: Duration) -> PeerSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(false);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[slot as usize] = true;
        self.here += 1;
        self.changes.push(EdgeChange {
            peer: PeerSlot(slot),
            tree: ONLY,
            source: Some(SourceSlot::Cdn),
            standby: None,
            planned: false,
        });
        PeerSlot(slot)
    }

    fn leave(&mut self, peers: &[PeerSlot], _: Duration) {
        for peer in peers {
            self.slots[peer.0 as usize] = false;
            self.free.push(peer.0);
            self.here -= 1;
            self.changes.push(EdgeChange {
                peer: *peer,
                tree: ONLY,
                source: None,
                standby: None,
                planned: false,
            });
        }
    }

    fn arrived(&mut self, _: PeerSlot, _: TreeId, _: Duration) {}
    fn failed(&mut self, _: PeerSlot, _: PeerSlot, _: Duration) {}
    fn late(&mut self, _: PeerSlot, _: PeerSlot, _: Duration) {}
    fn set_upload(&mut self, _: PeerSlot, _: u64, _: Duration) {}
    fn want(&mut self, _: PeerSlot, _: espalier_orchestrator_core::TrackName, _: Duration) {}
    fn tick(&mut self, _: Duration) {}

    fn next_timeout(&self) -> Option<Duration> {
        None
    }

    fn take_changes(&mut self, into: &mut Vec<EdgeChange>) {
        into.append(&mut self.changes);
    }

    fn source(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot> {
        let here = self.slots.get(peer.0 as usize).copied().unwrap_or(false);
        (here && tree == ONLY).then_some(SourceSlot::Cdn)
    }

    fn standby(&self, _: PeerSlot, _: TreeId) -> Option<SourceSlot> {
        None
    }

    fn children(&self, _: PeerSlot, _: TreeId, _: &mut Vec<PeerSlot>) {}

    fn root_count(&self, tree: TreeId) -> u32 {
        if tree == ONLY { self.here } else { 0 }
    }

    fn levels(&self, tree: TreeId) -> Vec<u32> {
        vec![0, self.root_count(tree)]
    }

    fn work(&self) -> Work {
        Work::default()
    }

    fn bytes(&self) -> Memory {
        Memory::default()
    }

    fn findings(&self) -> Vec<String> {
        Vec::new()
    }

    fn state_hash(&self) -> u64 {
        u64::from(self.here)
    }
}
