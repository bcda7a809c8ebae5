//! Audiences that come all at once, in a world where data takes its time: nobody can serve at first, so
//! what is decided then cannot be what is right later.

use core::time::Duration;
use std::collections::BTreeMap;

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const MBIT: u64 = 1_000_000;
const STEP: Duration = Duration::from_millis(50);

/// A world in which data flows some time after a peer was told its source, and only from a parent
/// whose own data flows.
struct Slow {
    world: World,
    /// Since when each peer has waited for the source that it was told.
    waiting: BTreeMap<PeerId, (Source, Duration)>,
    seed: u64,
}

impl Slow {
    fn new(seed: u64) -> Self {
        let mut world = World::new(PolicyDraft::default());
        world.obedient = false;
        Self {
            world,
            waiting: BTreeMap::new(),
            seed,
        }
    }

    /// Between 0.2 and 2.2 s: a link opens at once, and what flows first is the next segment.
    fn delay(&self, peer: PeerId, since: Duration) -> Duration {
        let salt = peer.0 ^ self.seed << 8 ^ u64::try_from(since.as_millis()).unwrap() << 20;
        let lot = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        Duration::from_millis(200 + lot % 2000)
    }

    fn join(&mut self, id: u64, role: PeerRole, upload_bps: u64) {
        self.world.join(id, role, upload_bps);
    }

    fn told(&self, peer: PeerId) -> Option<Source> {
        let told = self.world.actors[&peer].assignment.as_ref()?;
        told.tracks.first().map(|track| track.source)
    }

    fn flowing(&self, peer: PeerId) -> Option<Source> {
        let actor = self.world.actors.get(&peer)?;
        actor.flowing.values().next().copied()
    }

    /// Lets data flow wherever it has been waited for long enough.
    fn flow(&mut self) {
        let ids: Vec<_> = self.world.actors.keys().copied().collect();
        for id in ids {
            let told = self.told(id).filter(|told| self.flowing(id) != Some(*told));
            let Some(told) = told else {
                self.waiting.remove(&id);
                continue;
            };
            let now = self.world.now;
            let (source, since) = *self.waiting.entry(id).or_insert((told, now));
            if source != told {
                self.waiting.insert(id, (told, now));
                continue;
            }
            let has = match told {
                Source::Cdn => true,
                Source::Peer(parent) => self.flowing(parent).is_some(),
            };
            if has && now >= since + self.delay(id, since) {
                self.world.flow(id);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        let mut tick = self.world.engine.poll_timeout();
        while self.world.now < end {
            self.world.now += STEP;
            if tick.is_some_and(|at| at <= self.world.now) {
                self.world.event(ChannelEvent::Tick);
            }
            self.flow();
            tick = self.world.engine.poll_timeout().or(tick);
        }
    }

    fn shape(&self) -> (usize, u32) {
        let depth = self.world.engine.audience(self.world.now).max_depth;
        (self.world.roots().len(), depth)
    }
}

/// Twelve with two slots each, one after the other.
fn twelve(gap_ms: u64, seed: u64) -> Slow {
    let mut slow = Slow::new(seed);
    for id in 1..=12 {
        slow.join(id, Contributor, 5 * MBIT);
        slow.run(Duration::from_millis(gap_ms));
    }
    slow
}

#[test]
fn twelve_that_come_at_once_end_in_a_tree_as_shallow_as_it_can_be() {
    let gaps = [0, 50, 100, 200].into_iter().cycle();
    for (seed, gap_ms) in (0..24).zip(gaps) {
        let mut slow = twelve(gap_ms, seed);
        slow.run(Duration::from_secs(20));
        assert_eq!(slow.shape(), (1, 4), "{gap_ms} ms apart, seed {seed}");
        let (edges, entries) = (slow.world.edges(), slow.world.entries.len());
        slow.run(Duration::from_secs(60));
        assert_eq!(slow.world.edges(), edges, "and it stays as it is");
        assert_eq!(slow.world.entries.len(), entries);
    }
}

#[test]
fn few_move_for_it_one_at_a_time_and_keep_what_they_have_meanwhile() {
    for seed in 0..24 {
        let mut slow = twelve(100, seed);
        while slow.world.roots().len() > 1 {
            slow.run(STEP);
        }
        let (mut risen, mut before) = (Vec::new(), slow.world.edges());
        let start = slow.world.now;
        while slow.world.now < start + Duration::from_secs(20) {
            slow.run(STEP);
            let after = slow.world.edges();
            let new = after
                .iter()
                .filter(|(of, source)| before.get(of) != Some(source));
            for ((peer, _), _) in new {
                assert!(slow.world.told(peer.0).tracks[0].make_before_break);
                risen.push(slow.world.now);
            }
            before = after;
        }
        assert!(risen.len() <= 6, "{} moves, seed {seed}", risen.len());
        let hasty = risen.windows(2).any(|two| two[1] < two[0] + 9 * STEP);
        assert!(!hasty, "seed {seed}: {risen:?}");
    }
}

#[test]
fn who_vanishes_together_is_given_up_in_slices_and_who_comes_back_amid_them_stays() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=400 {
        world.join(id, Contributor, 20 * MBIT);
    }
    world.run(5);
    for id in 1..=300 {
        world.detach(id);
    }
    let grace = Duration::from_secs(10);
    world.now += grace;
    world.engine.handle(ChannelEvent::Tick, world.now);
    let left = world.edges().len();
    assert_eq!(left, 400 - crate::sessions::AT_ONCE, "after a slice");
    let due = world.engine.poll_timeout().expect("there is more to do");
    assert!(due <= world.now, "at once");
    let ids = world.edges().into_keys().map(|(peer, _)| peer.0);
    let back = ids.filter(|id| *id <= 300).max().expect("most are there");
    world.attach(back);
    while world
        .engine
        .poll_timeout()
        .is_some_and(|due| due <= world.now)
    {
        world.event(ChannelEvent::Tick);
        world.verify("a slice");
    }
    let ids: Vec<u64> = world.edges().into_keys().map(|(peer, _)| peer.0).collect();
    let expected: Vec<u64> = core::iter::once(back).chain(301..=400).collect();
    assert_eq!(ids, expected);
}
