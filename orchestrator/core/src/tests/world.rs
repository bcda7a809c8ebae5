//! A small world round one engine: a log that commits at once, and peers that do as they are told.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::forest::Work;
use crate::state::{ChannelState, Entry, LogPosition, Outcome};
use crate::*;

/// What a peer is: one in four says nothing.
pub(super) fn profile_of(id: u64) -> PeerProfile {
    if id.is_multiple_of(4) {
        return PeerProfile::default();
    }
    let nats = [
        NatClass::Open,
        NatClass::Symmetric,
        NatClass::PortRestricted,
        NatClass::Unknown,
    ];
    PeerProfile {
        metered: id.is_multiple_of(13),
        nat: nats[usize::try_from(id / 4 % 4).unwrap()],
        locality: Locality {
            lan: id / 2,
            site: 0,
            asn: 64_496,
            region: u16::try_from(id % 3).unwrap(),
        },
        ..PeerProfile::default()
    }
}

pub(super) fn track(name: &str) -> TrackName {
    name.parse().unwrap()
}

pub(super) fn peer(id: u64) -> PeerId {
    PeerId(id)
}

pub(super) fn info(index: u32, rate_bps: u64) -> TrackInfo {
    let name = track(&format!("v{index}"));
    TrackInfo {
        index: TrackIndex(index),
        name,
        rate_bps,
        default: index == 0,
    }
}

/// A stripe of a track.
pub(super) type Stripe = (TrackName, u8);

/// A peer as the world has it.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) role: PeerRole,
    pub(super) upload_bps: u64,
    pub(super) tracks: Vec<TrackName>,
    pub(super) attachment: u64,
    pub(super) session: bool,
    pub(super) assignment: Option<Assignment>,
    /// Where its data comes from.
    pub(super) flowing: BTreeMap<Stripe, Source>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) engine: ChannelEngine,
    /// What the entries have made of the channel's replicated state.
    pub(super) state: ChannelState,
    pub(super) term: u64,
    /// Commits wait for [`World::commit`].
    pub(super) lags: bool,
    pub(super) uncommitted: VecDeque<Entry>,
    pub(super) now: Duration,
    pub(super) index: u64,
    pub(super) actors: BTreeMap<PeerId, Actor>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) entries: Vec<Entry>,
    pub(super) sent: Vec<(PeerId, Assignment)>,
    /// Whether peers report on their own that data flows from where they are told to take it.
    pub(super) obedient: bool,
    pub(super) attachments: u64,
    /// The most that one event made the planner do.
    pub(super) most: Work,
    quiet: bool,
    /// What the peers that come are.
    pub(super) profile: fn(u64) -> PeerProfile,
}

impl World {
    pub(super) fn new(draft: PolicyDraft) -> Self {
        let policy = Policy::validate(&draft).unwrap();
        let mut world = Self::empty(policy, false);
        world.event(ChannelEvent::TracksChanged {
            tracks: vec![info(0, 1_500_000)],
        });
        world
    }

    pub(super) fn empty(policy: Policy, recovering: bool) -> Self {
        let state = ChannelState::new(1, policy.clone());
        let config = ChannelConfig {
            policy,
            incarnation: 1,
            term: 1,
            recovering,
        };
        Self {
            state,
            term: 1,
            lags: false,
            uncommitted: VecDeque::new(),
            engine: ChannelEngine::new(config, Duration::ZERO),
            now: Duration::ZERO,
            index: 0,
            actors: BTreeMap::new(),
            alarms: Vec::new(),
            entries: Vec::new(),
            sent: Vec::new(),
            obedient: true,
            attachments: 0,
            most: Work::default(),
            quiet: false,
            profile: |_| PeerProfile::default(),
        }
    }

    /// Restarts an orchestrator that has lost its state: peers keep what they have.
    pub(super) fn restart(&mut self, policy: Policy) {
        let incarnation = self.engine.generation().incarnation + 1;
        self.state = ChannelState::new(incarnation, policy.clone());
        self.term = 1;
        self.uncommitted.clear();
        let config = ChannelConfig {
            policy,
            incarnation,
            term: 1,
            recovering: true,
        };
        self.engine = ChannelEngine::new(config, self.now);
        self.lose_sessions();
    }

    fn lose_sessions(&mut self) {
        self.actors
            .values_mut()
            .for_each(|actor| actor.session = false);
    }

    /// The owner is gone, and with it what was not committed; another goes on from the replicated state.
    /// Nobody is attached to it yet.
    pub(super) fn fail_over(&mut self) {
        self.term += 1;
        self.uncommitted.clear();
        self.engine = self.rebuilt();
        self.lose_sessions();
        self.verify("a failover");
    }

    /// Returns the engine that another owner would have now.
    pub(super) fn rebuilt(&self) -> ChannelEngine {
        ChannelEngine::from_state(&self.state, self.term, self.now)
    }

    /// A new owner would have everything as this one has it, but for the sessions and what is known only
    /// through them.
    pub(super) fn verify_rebuild(&self, what: &str) {
        let rebuilt = self.rebuilt();
        let findings = rebuilt.check();
        assert!(findings.is_empty(), "rebuilt after {what}: {findings:#?}");
        let again = format!("{:?}", self.rebuilt());
        assert_eq!(format!("{rebuilt:?}"), again, "two rebuilds after {what}");
        let live = self.engine.topology().into_iter();
        let live: Vec<_> = live.filter(|row| row.source.is_some()).collect();
        let rows = rebuilt.topology();
        assert_eq!(rows.len(), live.len(), "after {what}");
        for (row, mut live) in rows.into_iter().zip(live) {
            (live.session, live.health) = (false, None);
            if matches!(live.state, NodeState::Repairing | NodeState::Bypass) {
                live.state = row.state;
            }
            assert_eq!(row, live, "after {what}");
            let told = |engine: &ChannelEngine| engine.told(row.peer);
            assert_eq!(told(&rebuilt), told(&self.engine), "after {what}");
            let profile = |engine: &ChannelEngine| engine.profile(row.peer);
            assert_eq!(profile(&rebuilt), profile(&self.engine), "after {what}");
        }
        assert_eq!(rebuilt.suspects(), self.engine.suspects(), "after {what}");
        let lasting = |engine: &ChannelEngine| {
            let mut pairs = engine.pairs().clone();
            pairs.expire(self.now);
            pairs.iter().collect::<Vec<_>>()
        };
        assert_eq!(lasting(&rebuilt), lasting(&self.engine), "after {what}");
    }

    /// Takes an entry's way through the log: as bytes, and into the state.
    /// Nobody is given a parent that its NAT cannot reach.
    fn expect_passable(&self, child: PeerId, source: Option<Source>) {
        if let Some(Source::Peer(parent)) = source {
            let [one, other] = [child, parent].map(|peer| (self.profile)(peer.0));
            let lan = one.locality.lan;
            let one_house = lan != 0 && lan == other.locality.lan;
            let passes = crate::forest::passes(one.nat, other.nat);
            assert!(one_house || passes, "{child} cannot reach {parent}");
            let [here, there] = [one, other].map(|profile| profile.locality.region);
            let abroad = here == 0 || here != there;
            let narrow = self.state.policy().privacy() == Privacy::SameRegion;
            assert!(one_house || !narrow || !abroad, "{child} serves abroad");
        }
    }

    fn replicate(&mut self, entry: &Entry) {
        for edge in &entry.edges {
            self.expect_passable(edge.peer, edge.edge.map(|edge| edge.source));
        }

        let bytes = entry.encode().unwrap();
        let entry = Entry::decode(&bytes).unwrap();
        let (term, index) = (self.term, self.index);
        let outcome = self.state.apply(&entry, LogPosition { term, index });
        assert_eq!(outcome, Outcome::Applied, "{entry:#?}");
    }

    pub(super) fn event(&mut self, event: ChannelEvent) {
        let what = format!("{event:?}");
        self.handle(event);
        self.verify(&what);
        self.drain();
    }

    fn handle(&mut self, event: ChannelEvent) {
        self.engine.handle(event, self.now);
        let work = self.engine.last_work();
        self.most.examined = self.most.examined.max(work.examined);
        self.most.edges = self.most.edges.max(work.edges);
        self.most.relabelled = self.most.relabelled.max(work.relabelled);
    }

    pub(super) fn verify(&self, what: &str) {
        if self.quiet {
            return;
        }
        let findings = self.engine.check();
        assert!(findings.is_empty(), "after {what}: {findings:#?}");
    }

    pub(super) fn drain(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            match command {
                ChannelCommand::Commit { entry } => {
                    self.entries.push(entry.clone());
                    self.uncommitted.push_back(entry);
                    if !self.lags {
                        self.commit_oldest(1);
                    }
                }
                ChannelCommand::Assign { peer, assignment } => {
                    self.sent.push((peer, assignment.clone()));
                    self.obey(peer, assignment);
                }
                ChannelCommand::Raise(alarm) => self.alarms.push(alarm),
                ChannelCommand::Rebuild => panic!("no commit fails here"),
            }
        }
    }

    /// The oldest of the entries that wait, so many of them, are committed at one place.
    pub(super) fn commit(&mut self, entries: usize) {
        self.commit_oldest(entries);
        self.drain();
    }

    fn commit_oldest(&mut self, entries: usize) {
        let entries = entries.min(self.uncommitted.len());
        self.index += 1;
        for entry in self.uncommitted.drain(..entries).collect::<Vec<_>>() {
            self.replicate(&entry);
        }
        let index = self.index;
        self.handle(ChannelEvent::Committed { index, entries });
        self.verify("committed");
    }

    fn obey(&mut self, peer: PeerId, assignment: Assignment) {
        let Some(actor) = self.actors.get_mut(&peer) else {
            return;
        };
        assert!(actor.session, "{peer} is told something without a session");
        if let Some(old) = &actor.assignment {
            assert!(
                old.generation <= assignment.generation,
                "{peer} is told older news"
            );
        }
        let generation = assignment.generation;
        actor.assignment = Some(assignment);
        self.handle(ChannelEvent::Acknowledged { peer, generation });
        if self.obedient {
            self.flow(peer);
        }
    }

    /// The peer's data flows from where it was told last.
    pub(super) fn flow(&mut self, peer: PeerId) {
        let Some(actor) = self.actors.get_mut(&peer) else {
            return;
        };
        let Some(assignment) = actor.assignment.clone() else {
            return;
        };
        let told = assignment
            .tracks
            .iter()
            .map(|told| ((told.track.clone(), told.stripe), told.source));
        let told: BTreeMap<_, _> = told.collect();
        let old = core::mem::replace(&mut actor.flowing, told.clone());
        for (stripe, source) in told {
            if old.get(&stripe) != Some(&source) {
                self.say_stripe(peer, stripe, source, SourceState::Flowing);
            }
        }
    }

    pub(super) fn say_source(
        &mut self,
        peer: PeerId,
        track: &TrackName,
        source: Source,
        state: SourceState,
    ) {
        self.say_stripe(peer, (track.clone(), 0), source, state);
    }

    fn say_stripe(&mut self, peer: PeerId, stripe: Stripe, source: Source, state: SourceState) {
        let actor = &self.actors[&peer];
        let generation = actor
            .assignment
            .as_ref()
            .map(|assignment| assignment.generation);
        let (track, stripe) = stripe;
        self.event(ChannelEvent::Source(SourceReport {
            peer,
            track,
            stripe,
            source,
            state,
            generation,
        }));
    }

    pub(super) fn say_link(&mut self, of: u64, neighbour: u64, state: LinkState) {
        let (peer, neighbour) = (peer(of), peer(neighbour));
        self.event(ChannelEvent::Link(LinkReport {
            peer,
            neighbour,
            state,
        }));
    }

    pub(super) fn join(&mut self, id: u64, role: PeerRole, upload_bps: u64) {
        self.join_for(id, role, upload_bps, &[]);
    }

    pub(super) fn join_for(&mut self, id: u64, role: PeerRole, upload_bps: u64, tracks: &[&str]) {
        let tracks = tracks.iter().map(|name| track(name)).collect();
        let actor = Actor {
            role,
            upload_bps,
            tracks,
            attachment: 0,
            session: false,
            assignment: None,
            flowing: BTreeMap::new(),
        };
        self.actors.insert(peer(id), actor);
        self.attach(id);
    }

    /// As [`World::join`], without the checks after each event, which see every peer.
    pub(super) fn join_quietly(&mut self, id: u64, role: PeerRole, upload_bps: u64) {
        self.quiet = true;
        self.join(id, role, upload_bps);
        self.quiet = false;
    }

    pub(super) fn leave_quietly(&mut self, id: u64) {
        self.quiet = true;
        self.leave(id);
        self.quiet = false;
    }

    /// The peer opens a session with all that it has.
    pub(super) fn attach(&mut self, id: u64) {
        self.attachments += 1;
        let attachment = self.attachments;
        let served = |parent: PeerId, stripe: &Stripe| {
            let fed = |actor: &Actor| actor.flowing.get(stripe) == Some(&Source::Peer(parent));
            self.actors
                .iter()
                .filter(|(_, a)| fed(a))
                .map(|(id, _)| *id)
                .collect::<Vec<_>>()
        };
        let actor = &self.actors[&peer(id)];
        let standby = |(track, stripe): &Stripe| {
            let tracks = actor
                .assignment
                .iter()
                .flat_map(|assignment| &assignment.tracks);
            tracks
                .filter(|told| told.track == *track && told.stripe == *stripe)
                .find_map(|told| told.standby)
        };
        let held = actor.flowing.iter().map(|(stripe, source)| HeldEdge {
            track: stripe.0.clone(),
            stripe: stripe.1,
            source: *source,
            standby: standby(stripe),
            children: served(peer(id), stripe),
        });
        let opened = SessionOpened {
            peer: peer(id),
            attachment,
            role: actor.role,
            upload_bps: actor.upload_bps,
            profile: (self.profile)(id),
            tracks: actor.tracks.clone(),
            held: held.collect(),
            generation: actor
                .assignment
                .as_ref()
                .map(|assignment| assignment.generation),
        };
        let actor = self.actors.get_mut(&peer(id)).unwrap();
        (actor.attachment, actor.session) = (attachment, true);
        self.event(ChannelEvent::SessionOpened(opened));
    }

    pub(super) fn detach(&mut self, id: u64) {
        let actor = self.actors.get_mut(&peer(id)).unwrap();
        actor.session = false;
        let attachment = actor.attachment;
        self.event(ChannelEvent::SessionLost {
            peer: peer(id),
            attachment,
        });
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.actors.remove(&peer(id));
        self.event(ChannelEvent::Left { peer: peer(id) });
    }

    /// The peer's process is killed: nobody hears from it again.
    pub(super) fn kill(&mut self, id: u64) {
        self.detach(id);
        self.actors.remove(&peer(id));
    }

    /// Lets time pass, tick by tick.
    pub(super) fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let next = self.engine.poll_timeout().unwrap_or(end).max(self.now);
            // A due tick that leads to another at once is legal, but not for ever.
            self.now = next
                .min(end)
                .max(self.now + Duration::from_millis(1))
                .min(end);
            self.event(ChannelEvent::Tick);
            if self.now >= end {
                return;
            }
        }
    }

    pub(super) fn row(&self, id: u64) -> NodeView {
        self.row_in(id, "v0")
    }

    pub(super) fn row_in(&self, id: u64, name: &str) -> NodeView {
        let rows = self.engine.topology().into_iter();
        let mut rows = rows.filter(|row| row.peer == peer(id) && row.track == track(name));
        rows.next()
            .unwrap_or_else(|| panic!("{id} is not in {name}'s tree"))
    }

    pub(super) fn roots(&self) -> BTreeSet<PeerId> {
        let rows = self.engine.topology().into_iter();
        rows.filter(|row| row.source == Some(Source::Cdn))
            .map(|row| row.peer)
            .collect()
    }

    pub(super) fn edges(&self) -> BTreeMap<(PeerId, TrackName), Option<Source>> {
        let rows = self.engine.topology().into_iter();
        rows.map(|row| ((row.peer, row.track), row.source))
            .collect()
    }

    pub(super) fn told(&self, id: u64) -> &Assignment {
        self.actors[&peer(id)].assignment.as_ref().unwrap()
    }
}
