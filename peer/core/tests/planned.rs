//! The whole system without its shells: the planner's real engine tells real relay engines what to do,
//! and hears from them, on a network in memory.

mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use espalier_orchestrator_core as plan;
use espalier_peer_core::{
    Assignment, CdnLease, ChildAssignment, Event, Generation, LinkState, PeerId, Source,
    SourceReport, SourceState, TrackAssignment, TrackName,
};
use network::{MS, Network, Origin, TARGET, peer};
use plan::{ChannelCommand, ChannelEngine, ChannelEvent, NodeView};

const MBIT: u64 = 1_000_000;
/// How long a word between a peer and the planner takes.
const STEP: Duration = Duration::from_millis(10);
const TRACK: &str = "main";
/// 1.5 Mbit/s.
const SEGMENT: usize = 375_000;

/// What the planner has heard of one peer.
#[derive(Debug, Default)]
struct Heard {
    sources: usize,
    links: usize,
    acknowledged: Generation,
}

struct World {
    network: Network,
    engine: ChannelEngine,
    index: u64,
    heard: BTreeMap<PeerId, Heard>,
    tick: Option<Duration>,
}

impl World {
    fn new() -> Self {
        Self::with(1, SEGMENT)
    }

    fn with(stripes: u32, segment: usize) -> Self {
        let mut network = Network::new(Origin::new(segment, false));
        network.run_for(Duration::from_millis(5_100));
        let draft = plan::PolicyDraft {
            stripes: Some(stripes),
            ..plan::PolicyDraft::default()
        };
        let config = plan::ChannelConfig {
            policy: plan::Policy::validate(&draft).expect("a policy"),
            incarnation: 1,
            term: 1,
            recovering: false,
        };
        let mut world = Self {
            engine: ChannelEngine::new(config, network.now),
            network,
            index: 0,
            heard: BTreeMap::new(),
            tick: None,
        };
        let track = plan::TrackInfo {
            index: plan::TrackIndex(0),
            name: TRACK.parse().expect("a name"),
            rate_bps: segment as u64 * 8 / TARGET.as_secs(),
            default: true,
        };
        world.event(ChannelEvent::TracksChanged {
            tracks: vec![track],
        });
        world
    }

    fn event(&mut self, event: ChannelEvent) {
        self.engine.handle(event, self.network.now);
        while let Some(command) = self.engine.poll_command() {
            match command {
                ChannelCommand::Commit { entry: _ } => {
                    self.index += 1;
                    let (index, entries) = (self.index, 1);
                    let committed = ChannelEvent::Committed { index, entries };
                    self.engine.handle(committed, self.network.now);
                }
                ChannelCommand::Assign { peer, assignment } => {
                    let event = Event::Assignment(to_peer(assignment));
                    self.network.tell(PeerId(peer.0), event);
                }
                ChannelCommand::Raise(_) => {}
                ChannelCommand::Rebuild => panic!("no commit fails here"),
            }
        }
        let findings = self.engine.check();
        assert!(findings.is_empty(), "{findings:?}");
        self.tick = self.engine.poll_timeout();
    }

    fn join(&mut self, id: u64, upload_bps: u64) {
        self.network.add(id, upload_bps);
        self.heard.insert(peer(id), Heard::default());
        self.event(ChannelEvent::SessionOpened(plan::SessionOpened {
            peer: plan::PeerId(id),
            attachment: 1,
            role: plan::PeerRole::Contributor,
            upload_bps,
            profile: plan::PeerProfile::default(),
            tracks: Vec::new(),
            held: Vec::new(),
            generation: None,
        }));
    }

    /// As kill -9: the node sees the connection reset, other peers see nothing at all.
    fn kill(&mut self, id: PeerId) {
        self.network.kill(id);
        self.heard.remove(&id);
        self.event(ChannelEvent::SessionLost {
            peer: plan::PeerId(id.0),
            attachment: 1,
        });
    }

    fn run(&mut self, time: Duration) {
        let end = self.network.now + time;
        while self.network.now < end {
            self.network.run_for(STEP);
            if self.tick.is_some_and(|at| at <= self.network.now) {
                self.event(ChannelEvent::Tick);
            }
            self.listen();
        }
    }

    /// Takes to the planner what the peers have said.
    fn listen(&mut self) {
        let mut news = Vec::new();
        for (id, heard) in &mut self.heard {
            let node = self.network.node(*id);
            if node.acknowledged != heard.acknowledged {
                heard.acknowledged = node.acknowledged;
                news.push(ChannelEvent::Acknowledged {
                    peer: plan::PeerId(id.0),
                    generation: to_planner(node.acknowledged),
                });
            }
            let links = node.link_reports.iter().skip(heard.links);
            news.extend(links.map(|(_, neighbour, state)| link_report(*id, *neighbour, *state)));
            let sources = node.reports.iter().skip(heard.sources);
            news.extend(sources.filter_map(|(_, report)| source_report(*id, report)));
            (heard.links, heard.sources) = (node.link_reports.len(), node.reports.len());
        }
        for event in news {
            self.event(event);
        }
    }

    fn tree(&self) -> Vec<NodeView> {
        self.engine.topology()
    }

    fn depth(&self) -> u32 {
        self.tree().iter().map(|row| row.depth).max().unwrap_or(0)
    }

    fn roots(&self) -> BTreeSet<PeerId> {
        let fed = |row: &NodeView| row.source == Some(plan::Source::Cdn);
        let rows = self.tree().into_iter().filter(fed);
        rows.map(|row| PeerId(row.peer.0)).collect()
    }

    fn below(&self, top: PeerId) -> BTreeSet<PeerId> {
        let rows = self.tree();
        let mut below = BTreeSet::new();
        let mut next = vec![top];
        while let Some(at) = next.pop() {
            let row = rows.iter().find(|row| row.peer.0 == at.0);
            let children = row.into_iter().flat_map(|row| &row.children);
            let children: Vec<_> = children.map(|child| PeerId(child.0)).collect();
            below.extend(&children);
            next.extend(children);
        }
        below
    }
}

fn to_planner(generation: Generation) -> plan::Generation {
    plan::Generation {
        incarnation: generation.incarnation,
        term: generation.term,
        index: generation.index,
    }
}

fn to_peer(assignment: plan::Assignment) -> Assignment {
    let source = |source| match source {
        plan::Source::Cdn => Source::Cdn,
        plan::Source::Peer(peer) => Source::Peer(PeerId(peer.0)),
    };
    let plan::Generation {
        incarnation,
        term,
        index,
    } = assignment.generation;
    let tracks = assignment.tracks.into_iter().map(|track| TrackAssignment {
        track: TrackName(track.track.to_string()),
        stripe: track.stripe,
        stripes: track.stripes,
        source: Some(source(track.source)),
        standby: track.standby.map(source),
        make_before_break: track.make_before_break,
    });
    let children = assignment
        .children
        .into_iter()
        .map(|child| ChildAssignment {
            track: TrackName(child.track.to_string()),
            stripe: child.stripe,
            peer: PeerId(child.peer.0),
            standby: child.standby,
        });
    Assignment {
        generation: Generation {
            incarnation,
            term,
            index,
        },
        tracks: tracks.collect(),
        children: children.collect(),
        cdn_lease: Some(CdnLease {
            rate_bps: assignment.cdn_lease.rate_bps,
            burst_bytes: assignment.cdn_lease.burst_bytes,
            lifetime: assignment.cdn_lease.lifetime,
        }),
        upload_bps: assignment.upload_bps,
    }
}

fn link_report(peer: PeerId, neighbour: PeerId, state: LinkState) -> ChannelEvent {
    let state = match state {
        LinkState::Up => plan::LinkState::Up,
        LinkState::Failed => plan::LinkState::Failed,
        LinkState::Dead => plan::LinkState::Dead,
        LinkState::Corrupt => plan::LinkState::Corrupt,
        LinkState::Late => plan::LinkState::Late,
        LinkState::Invalid => plan::LinkState::Invalid,
        LinkState::Closed => plan::LinkState::Closed,
    };
    ChannelEvent::Link(plan::LinkReport {
        peer: plan::PeerId(peer.0),
        neighbour: plan::PeerId(neighbour.0),
        state,
    })
}

fn source_report(peer: PeerId, report: &SourceReport) -> Option<ChannelEvent> {
    let source = match report.source? {
        Source::Cdn => plan::Source::Cdn,
        Source::Peer(parent) => plan::Source::Peer(plan::PeerId(parent.0)),
    };
    let state = match report.state {
        SourceState::Flowing => plan::SourceState::Flowing,
        SourceState::Repairing => plan::SourceState::Repairing,
        SourceState::Bypass => plan::SourceState::Bypass,
    };
    Some(ChannelEvent::Source(plan::SourceReport {
        peer: plan::PeerId(peer.0),
        track: report.track.as_str().parse().expect("a name"),
        stripe: report.stripe,
        source,
        state,
        generation: Some(to_planner(report.generation)),
    }))
}

/// Twelve with two slots each, so many milliseconds apart.
fn twelve(gap: Duration, upload_bps: u64) -> World {
    let mut world = World::new();
    for id in 1..=12 {
        world.join(id, upload_bps);
        world.run(gap);
    }
    world
}

#[test]
fn twelve_that_come_at_once_end_in_a_shallow_tree_with_one_root() {
    for gap in [0, 60, 120, 200] {
        let mut world = twelve(gap * MS, 5 * MBIT);
        world.run(Duration::from_secs(10));
        let shape = (world.roots().len(), world.depth());
        assert_eq!(shape, (1, 4), "{gap} ms apart");
        world.run(Duration::from_secs(10));
        for id in 1..=12 {
            let playout = world
                .network
                .node(peer(id))
                .engine
                .snapshot(world.network.now)
                .playout;
            assert_eq!(playout.stalls, 0, "peer {id}, {gap} ms apart");
        }
    }
}

/// The interior peer below the root with the most below it is killed. Nobody misses anything or gets
/// it much later; only the orphan heads touch the CDN; nobody moves but they and their rescuer. A head whose
/// standby is the CDN, because the planner found no peer to keep for it, is a root until it has another place.
fn kill_an_interior_peer(gap: Duration, moment: Duration) {
    let mut world = twelve(gap, 5 * MBIT);
    world.run(Duration::from_secs(20) + moment);
    let rows = world.tree();
    let below = |row: &NodeView| world.below(PeerId(row.peer.0));
    let interior = rows.iter().filter(|row| row.depth > 1);
    let victim = interior.max_by_key(|row| below(row).len());
    let victim = victim.expect("an interior peer");
    let heads: BTreeSet<_> = victim.children.iter().map(|c| PeerId(c.0)).collect();
    let (below, roots) = (below(victim), world.roots());
    let without_standby = |row: &&NodeView| {
        row.source == Some(plan::Source::Peer(victim.peer))
            && row.standby == Some(plan::Source::Cdn)
    };
    let on_their_own = rows.iter().filter(without_standby);
    let on_their_own: BTreeSet<_> = on_their_own.map(|row| PeerId(row.peer.0)).collect();
    assert!(below.len() >= 3, "{rows:#?}");
    let (killed, next) = (world.network.now, world.network.origin.next_sequence());
    let worst = |world: &World, id, from| world.network.worst_delay(id, from);
    let usual: Vec<_> = below
        .iter()
        .map(|id| worst(&world, *id, next - 4))
        .collect();

    let mut moves = 0;
    world.kill(PeerId(victim.peer.0));
    let mut before = world.tree();
    for _ in 0..140 {
        world.run(Duration::from_millis(100));
        let others = &world.roots() - &on_their_own;
        assert_eq!(others, roots, "no other root");
        let after = world.tree();
        let source = |rows: &[NodeView], of: &NodeView| {
            let mut same = rows.iter().filter(|row| row.peer == of.peer);
            same.next().and_then(|row| row.source)
        };
        moves += after
            .iter()
            .filter(|row| source(&before, row) != row.source)
            .count();
        before = after;
    }
    assert_eq!(world.roots(), roots, "everybody is back in the tree");
    assert!(
        moves <= heads.len() + on_their_own.len() + 1,
        "{moves} moves, {gap:?}, {moment:?}"
    );
    world.network.assert_gapless(2);
    for (id, usual) in below.iter().zip(usual) {
        let lateness = worst(&world, *id, next - 1).saturating_sub(usual);
        assert!(
            lateness <= Duration::from_millis(1_500),
            "{id}: {lateness:?}, {gap:?}, {moment:?}"
        );
    }
    let alive = world
        .heard
        .keys()
        .filter(|id| !roots.contains(id) && !heads.contains(id));
    for id in alive {
        let requests = world.network.requests_since(*id, killed);
        assert_eq!(requests, 0, "{id} is no orphan head, {gap:?}, {moment:?}");
    }
}

#[test]
fn the_death_of_an_interior_peer_is_felt_by_its_children_and_their_rescuer_alone() {
    for gap in [0, 50, 100, 150] {
        for moment in [0, 800, 1_600] {
            kill_an_interior_peer(gap * MS, moment * MS);
        }
    }
}

#[test]
fn who_fell_to_the_cdn_is_below_a_peer_again_within_seconds() {
    for depth in [3, 5, 7] {
        // One slot each: a chain, in which nobody has a peer as standby.
        let mut world = World::new();
        for id in 1..=8 {
            world.join(id, 2_500_000);
            world.run(400 * MS);
        }
        world.run(Duration::from_secs(20));
        let rows = world.tree();
        let victim = rows.iter().find(|row| row.depth == depth);
        let victim = victim.expect("a chain of eight");
        world.kill(PeerId(victim.peer.0));
        world.run(Duration::from_secs(6));
        assert_eq!(world.roots().len(), 1, "{:#?}", world.tree());
        world.run(Duration::from_secs(10));
        assert_eq!(world.roots().len(), 1);
        world.network.assert_gapless(3);
    }
}

#[test]
fn stripes_have_a_tree_each_and_a_death_stops_no_picture() {
    for stripes in [2, 4] {
        // Sixteen chunks a segment: as many for each stripe. 3.9 Mbit/s.
        let mut world = World::with(stripes, 976_000);
        for id in 1..=12 {
            world.join(id, 13 * MBIT);
            world.run(60 * MS);
        }
        world.run(Duration::from_secs(20));
        let rows = world.tree();
        for stripe in (0..).take(stripes as usize) {
            let of_stripe = || rows.iter().filter(|row| row.stripe == stripe);
            let fed = |row: &&NodeView| row.source == Some(plan::Source::Cdn);
            assert_eq!(of_stripe().count(), 12, "stripe {stripe} of {stripes}");
            assert_eq!(
                of_stripe().filter(fed).count(),
                1,
                "{stripe} of {stripes}: {rows:#?}"
            );
        }
        let (since, taken) = (world.network.now, world.roots());
        world.run(Duration::from_secs(10));
        for id in (1..=12).map(peer).filter(|id| !taken.contains(id)) {
            let requests = world.network.requests_since(id, since);
            assert_eq!(requests, 0, "{id} of {stripes} stripes");
        }
        let children = |row: &&NodeView| row.children.len();
        let victim = world.tree().iter().max_by_key(children).map(|row| row.peer);
        world.kill(PeerId(victim.expect("a parent").0));
        world.run(Duration::from_secs(20));
        world.network.assert_gapless(2);
        for id in world.heard.keys() {
            let node = world.network.node(*id);
            let snapshot = node.engine.snapshot(world.network.now);
            assert_eq!(snapshot.playout.stalls, 0, "{id} of {stripes} stripes");
            assert!(
                snapshot
                    .tracks
                    .iter()
                    .all(|track| track.state == SourceState::Flowing)
            );
        }
    }
}
