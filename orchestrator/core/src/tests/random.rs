//! Ten thousand random events a run, friendly and hostile, with every invariant after each, beside a
//! model that knows only who must be in which tree.

use core::hash::{Hash, Hasher};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::DefaultHasher;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::world::*;
use crate::*;

/// Events of one run.
const EVENTS: usize = 10_000;
const TRACKS: u32 = 3;

/// The reference: a plain map of who is in and what it wants. It plans nothing.
#[derive(Debug, Default)]
struct Model {
    wants: BTreeMap<PeerId, BTreeSet<TrackName>>,
    roles: BTreeMap<PeerId, PeerRole>,
    tracks: BTreeSet<TrackName>,
}

impl Model {
    /// Each peer is in exactly the trees that it wants, fed by a peer that is there too or by the CDN.
    fn verify(&self, world: &World, what: &str) {
        let rows = world.engine.topology();
        let mut is: BTreeMap<PeerId, BTreeSet<TrackName>> = BTreeMap::new();
        for row in &rows {
            is.entry(row.peer).or_default().insert(row.track.clone());
        }
        let mut must = self.wants.clone();
        must.values_mut()
            .for_each(|wants| wants.retain(|track| self.tracks.contains(track)));
        must.retain(|_, wants| !wants.is_empty());
        if world.engine.is_recovering() {
            // Who is awaited is shown with what it held, not with what it wants.
            let in_trees = rows.iter().filter(|row| row.source.is_some());
            assert!(
                in_trees.clone().all(|row| must.contains_key(&row.peer)),
                "after {what}"
            );
            return;
        }
        assert_eq!(is, must, "after {what}");
        for row in &rows {
            let track = &row.track;
            match row.source {
                Some(Source::Peer(parent)) => {
                    assert!(is.get(&parent).is_some_and(|tracks| tracks.contains(track)));
                    assert_ne!(self.roles[&parent], PeerRole::Consumer, "after {what}");
                }
                Some(Source::Cdn) => {}
                None => panic!("{} has no source in {track} after {what}", row.peer),
            }
        }
    }
}

/// One random event, as numbers; what they mean depends on the state.
type Dice = (u8, u64, u64, u32);

/// What a run's audience is like.
#[derive(Debug, Clone, Copy)]
enum Temper {
    /// A few dozen, whom everything befalls.
    Rough,
    /// Some hundred, who mostly stay and do as they are told.
    Gentle,
    /// As rough, with a log that takes its time.
    Lagging,
}

struct Run {
    temper: Temper,
    world: World,
    model: Model,
    digest: DefaultHasher,
    events: u32,
    /// How many the signer has told of.
    tracks: u32,
}

impl Run {
    fn new(draft: PolicyDraft, temper: Temper) -> Self {
        let mut world = World::empty(Policy::validate(&draft).unwrap(), false);
        world.obedient = false;
        world.profile = profile_of;
        world.lags = matches!(temper, Temper::Lagging);
        let mut run = Self {
            temper,
            world,
            model: Model::default(),
            digest: DefaultHasher::new(),
            events: 0,
            tracks: 0,
        };
        run.set_tracks(TRACKS);
        run
    }

    fn set_tracks(&mut self, tracks: u32) {
        let tracks: Vec<_> = (0..tracks)
            .map(|i| info(i, 500_000 * u64::from(i + 1)))
            .collect();
        self.tracks = u32::try_from(tracks.len()).unwrap();
        self.model.tracks = tracks.iter().map(|info| info.name.clone()).collect();
        self.world.event(ChannelEvent::TracksChanged { tracks });
    }

    /// Peers that the audience has, and one of them by lot.
    fn pick(&self, lot: u64) -> Option<u64> {
        let peers: Vec<_> = self.world.actors.keys().collect();
        let at = usize::try_from(lot).unwrap() % peers.len().max(1);
        peers.get(at).map(|peer| peer.0)
    }

    fn wanted(n: u32) -> Vec<&'static str> {
        [
            vec![],
            vec!["v0"],
            vec!["v1"],
            vec!["v0", "v2"],
            vec!["v0", "v1", "v2"],
        ][n as usize % 5]
            .clone()
    }

    fn set_wants(&mut self, id: u64, names: &[&str]) {
        let names = if names.is_empty() { &["v0"][..] } else { names };
        self.model
            .wants
            .insert(peer(id), names.iter().map(|name| track(name)).collect());
    }

    fn join(&mut self, id: u64, b: u64, n: u32) {
        let role = match n % 8 {
            0 | 1 => PeerRole::Consumer,
            2 if id.is_multiple_of(7) => PeerRole::Relay,
            _ => PeerRole::Contributor,
        };
        self.model.roles.insert(peer(id), role);
        self.set_wants(id, &Self::wanted(n / 8));
        self.world
            .join_for(id, role, (b % 12) * 1_000_000, &Self::wanted(n / 8));
    }

    /// The model forgets whom the engine says that it has given up, and nobody else.
    fn take_alarms(&mut self) {
        for alarm in core::mem::take(&mut self.world.alarms) {
            if let Alarm::PeerPresumedGone { peer, .. } = alarm {
                self.model.wants.remove(&peer);
                self.model.roles.remove(&peer);
                if self
                    .world
                    .actors
                    .get(&peer)
                    .is_some_and(|actor| !actor.session)
                {
                    self.world.actors.remove(&peer);
                }
            }
        }
    }

    fn step(&mut self, (kind, a, b, n): Dice) {
        let (fresh, kind) = match self.temper {
            Temper::Rough | Temper::Lagging => (a % 60, kind),
            Temper::Gentle if (10..=16).contains(&kind) && !n.is_multiple_of(9) => (a % 250, 0),
            Temper::Gentle if (53..=84).contains(&kind) && !n.is_multiple_of(9) => (a % 250, 30),
            Temper::Gentle => (a % 250, kind),
        };
        let Some(one) = self.pick(a) else {
            self.join(fresh, b, n);
            return self.verify("the first join");
        };
        let other = self.pick(b).unwrap_or(one);
        let world = &mut self.world;
        match kind {
            0..=9 if !world.actors.contains_key(&peer(fresh)) => {
                // Somebody who was killed may come back before it is given up.
                self.join(fresh, b, n);
            }
            10..=12 => {
                world.leave(one);
                self.model.wants.remove(&peer(one));
                self.model.roles.remove(&peer(one));
            }
            13..=16 => world.detach(one),
            17..=22 => {
                if !world.actors[&peer(one)].session {
                    self.attach(one);
                }
            }
            23..=52 => world.flow(peer(one)),
            53..=60 => self.say_random_source(one, other, n),
            61..=66 => {
                let states = [
                    LinkState::Up,
                    LinkState::Failed,
                    LinkState::Dead,
                    LinkState::Late,
                    LinkState::Invalid,
                    LinkState::Closed,
                ];
                world.say_link(one, other, states[n as usize % states.len()]);
            }
            67 => world.say_link(one, other, LinkState::Corrupt),
            68 => self.accuse_parent(one),
            69..=71 => self.lose_parent(one, n),
            72..=74 => {
                let rate_bps = u64::from(n % 40) * 100_000;
                let track = TrackIndex(n % TRACKS);
                world.event(ChannelEvent::TrackRate { track, rate_bps });
            }
            75..=77 => {
                let names = Self::wanted(n);
                let tracks: Vec<_> = names.iter().map(|name| track(name)).collect();
                world.actors.get_mut(&peer(one)).unwrap().tracks = tracks.clone();
                world.event(ChannelEvent::WantTracks {
                    peer: peer(one),
                    tracks,
                });
                if self.model.wants.contains_key(&peer(one)) {
                    self.set_wants(one, &names);
                }
            }
            78 if n.is_multiple_of(10) => {
                let draft = PolicyDraft {
                    target_roots: Some(n % 4 + 1),
                    max_planned_roots: Some(n % 8 + 4),
                    max_depth: Some(n % 9 + 1),
                    max_children: Some(n % 5 + 1),
                    overhead_permille: Some(1000 + n % 600),
                    cdn_lease_bps: None,
                    ..PolicyDraft::default()
                };
                let policy = Policy::validate(&draft).unwrap();
                world.event(ChannelEvent::PolicyChanged { policy });
            }
            79 if n.is_multiple_of(20) => self.set_tracks(n / 20 % TRACKS + 1),
            80 if n.is_multiple_of(8) => self.restart(b, n.is_multiple_of(16)),
            81..=82 => {
                let report = PeerReport {
                    bytes_from_cdn: b % 1000,
                    ..PeerReport::default()
                };
                world.event(ChannelEvent::Report {
                    peer: peer(one),
                    report,
                });
            }
            85..=86 => self.fail_over(b, n),
            87..=90 if world.lags => world.commit(n as usize % 5),
            91..=94 if world.lags => world.commit(usize::MAX),
            83..=84 => {
                // It starts anew with its old id.
                let actor = world.actors.get_mut(&peer(one)).unwrap();
                (actor.assignment, actor.flowing) = (None, BTreeMap::new());
                self.attach(one);
            }
            _ => {
                world.now += core::time::Duration::from_millis(u64::from(n % 3000));
                world.event(ChannelEvent::Tick);
            }
        }
        self.verify("a random event");
    }

    fn say_random_source(&mut self, one: u64, other: u64, n: u32) {
        let source = if n.is_multiple_of(3) {
            Source::Cdn
        } else {
            Source::Peer(peer(other))
        };
        let states = [
            SourceState::Flowing,
            SourceState::Repairing,
            SourceState::Bypass,
        ];
        let name = track(&format!("v{}", n % TRACKS));
        self.world
            .say_source(peer(one), &name, source, states[n as usize / 3 % 3]);
    }

    fn parent_of(&self, id: u64) -> Option<u64> {
        let rows = self.world.engine.topology();
        rows.into_iter()
            .filter(|row| row.peer == peer(id))
            .find_map(|row| match row.source {
                Some(Source::Peer(parent)) => Some(parent.0),
                Some(Source::Cdn) | None => None,
            })
    }

    fn accuse_parent(&mut self, id: u64) {
        if let Some(parent) = self.parent_of(id) {
            self.world.say_link(id, parent, LinkState::Corrupt);
        }
    }

    /// The peer's parent is killed; the child says so before or after its session is lost, and
    /// switches to its standby before or after that.
    fn lose_parent(&mut self, id: u64, n: u32) {
        let Some(parent) = self.parent_of(id) else {
            return;
        };
        let standbys: Vec<_> = self.world.engine.topology().into_iter().collect();
        let standbys = standbys.iter().filter(|row| row.peer == peer(id));
        let standbys: Vec<_> = standbys
            .filter_map(|row| Some((row.track.clone(), row.standby?)))
            .collect();
        let switch = |world: &mut World| {
            for (track, standby) in &standbys {
                world.say_source(peer(id), track, *standby, SourceState::Flowing);
            }
        };
        if n.is_multiple_of(2) && self.world.actors[&peer(parent)].session {
            self.world.detach(parent);
        }
        if n.is_multiple_of(3) {
            switch(&mut self.world);
        }
        self.world.say_link(id, parent, LinkState::Dead);
        if n.is_multiple_of(5) {
            switch(&mut self.world);
        }
    }

    fn restart(&mut self, lot: u64, everybody: bool) {
        self.model = Model::default();
        self.world.restart(Policy::default());
        self.set_tracks(TRACKS);
        let ids: Vec<_> = self.world.actors.keys().copied().collect();
        for (place, id) in (0..).zip(ids) {
            // Some have switched by themselves meanwhile.
            let told = self.world.actors[&id].assignment.clone();
            for track in told.into_iter().flat_map(|told| told.tracks) {
                if id.0.is_multiple_of(3)
                    && let Some(standby) = track.standby
                {
                    let actor = self.world.actors.get_mut(&id).unwrap();
                    actor.flowing.insert((track.track, track.stripe), standby);
                }
            }
            // Some come back at once, the others as the dice fall, or never.
            if everybody || lot >> (place % 64) & 1 == 1 {
                self.attach(id.0);
            }
        }
    }

    /// The owner is gone. Some gateways say at once who is attached; the other peers come back as the dice
    /// fall, or are given up.
    fn fail_over(&mut self, lot: u64, n: u32) {
        let attached = self.world.actors.iter().filter(|(_, actor)| actor.session);
        let attached: Vec<_> = attached.map(|(id, _)| id.0).collect();
        let lost = !self.world.uncommitted.is_empty();
        if self.world.engine.is_recovering() {
            // Who was awaited is in no record.
            let state = &self.world.state;
            self.model
                .wants
                .retain(|peer, _| state.peer(*peer).is_some());
            self.model
                .roles
                .retain(|peer, _| state.peer(*peer).is_some());
        }
        self.world.fail_over();
        if lost {
            self.go_back_to_records();
        }
        for (place, id) in (0..).zip(attached) {
            if n.is_multiple_of(2) || lot >> (place % 64) & 1 == 1 {
                self.attach(id);
            }
        }
        if n.is_multiple_of(3) {
            self.world.event(ChannelEvent::AbsenceCounts);
        }
    }

    /// What was not committed has not happened. The signer repeats the tracks, and gateways who left.
    fn go_back_to_records(&mut self) {
        let records = self.world.state.peers();
        let records: Vec<_> = records
            .map(|(id, record)| (id, record.offer.clone()))
            .collect();
        (self.model.wants, self.model.roles) = (BTreeMap::new(), BTreeMap::new());
        for (id, offer) in &records {
            let wanted: Vec<_> = offer.wanted.iter().map(TrackName::as_str).collect();
            self.model.roles.insert(*id, offer.role);
            self.set_wants(id.0, &wanted);
        }
        self.set_tracks(self.tracks);
        for (id, _) in records {
            if !self.world.actors.contains_key(&id) {
                self.world.leave(id.0);
                self.model.wants.remove(&id);
                self.model.roles.remove(&id);
            }
        }
    }

    fn attach(&mut self, id: u64) {
        let actor = &self.world.actors[&peer(id)];
        let (role, names) = (actor.role, actor.tracks.clone());
        let names: Vec<_> = names.iter().map(TrackName::as_str).collect();
        self.model.roles.insert(peer(id), role);
        self.set_wants(id, &names);
        self.world.attach(id);
    }

    fn verify(&mut self, what: &str) {
        self.take_alarms();
        self.model.verify(&self.world, what);
        self.events += 1;
        if self.events.is_multiple_of(7) && self.world.uncommitted.is_empty() {
            self.world.verify_rebuild(what);
        }
        for (peer, assignment) in core::mem::take(&mut self.world.sent) {
            (peer, format!("{assignment:?}")).hash(&mut self.digest);
        }
        for entry in core::mem::take(&mut self.world.entries) {
            format!("{entry:?}").hash(&mut self.digest);
        }
    }

    fn digest(mut self) -> u64 {
        format!("{:?}", self.world.engine.topology()).hash(&mut self.digest);
        self.digest.finish()
    }
}

fn dice() -> impl Strategy<Value = Dice> {
    (0_u8..100, any::<u64>(), any::<u64>(), any::<u32>())
}

/// Draws one long run from a seed; proptest's own strategies, without its shrinking of 10,000 events.
fn draw(seed: u8, events: usize) -> Vec<Dice> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = proptest::collection::vec(dice(), events);
    strategy.new_tree(&mut runner).unwrap().current()
}

fn play(draft: PolicyDraft, temper: Temper, dice: Vec<Dice>) -> u64 {
    let mut run = Run::new(draft, temper);
    for dice in dice {
        run.step(dice);
    }
    run.digest()
}

use proptest::strategy::ValueTree;

#[test]
fn ten_thousand_random_events_leave_every_invariant_whole() {
    play(PolicyDraft::default(), Temper::Rough, draw(1, EVENTS));
}

#[test]
fn and_so_under_a_narrow_policy() {
    let draft = PolicyDraft {
        target_roots: Some(3),
        max_planned_roots: Some(4),
        max_depth: Some(4),
        max_children: Some(2),
        ..PolicyDraft::default()
    };
    play(draft, Temper::Rough, draw(2, EVENTS));
}

#[test]
fn and_so_with_tracks_that_are_cut_into_stripes() {
    let draft = PolicyDraft {
        stripes: Some(3),
        ..PolicyDraft::default()
    };
    play(draft, Temper::Rough, draw(7, 4000));
}

#[test]
fn and_so_where_nobody_may_serve_another_region() {
    let draft = PolicyDraft {
        privacy: Some(Privacy::SameRegion),
        ..PolicyDraft::default()
    };
    play(draft, Temper::Gentle, draw(8, 2000));
}

#[test]
fn and_so_with_a_larger_audience_in_a_gentler_world() {
    play(PolicyDraft::default(), Temper::Gentle, draw(5, 2000));
}

#[test]
fn and_so_with_a_log_that_takes_its_time_and_loses_what_it_had_not_taken() {
    play(PolicyDraft::default(), Temper::Lagging, draw(6, EVENTS));
}

#[test]
fn the_same_events_give_the_same_entries_and_assignments() {
    let once = play(PolicyDraft::default(), Temper::Rough, draw(3, 1500));
    assert_eq!(
        once,
        play(PolicyDraft::default(), Temper::Rough, draw(3, 1500))
    );
    assert_ne!(
        once,
        play(PolicyDraft::default(), Temper::Rough, draw(4, 1500))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Short runs, so that what fails is shrunk to a few events.
    #[test]
    fn short_random_runs_leave_every_invariant_whole(
        dice in proptest::collection::vec(dice(), 1..250),
    ) {
        play(PolicyDraft::default(), Temper::Rough, dice.clone());
        play(PolicyDraft::default(), Temper::Lagging, dice);
    }
}
