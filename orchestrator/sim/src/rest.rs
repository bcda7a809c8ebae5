//! What is looked at now and then, and whether a healed world has come to rest.

use std::collections::BTreeMap;

use espalier_orchestrator_core::state::{ChannelState, EdgeRecord, LogPosition};
use espalier_orchestrator_core::{
    ChannelEngine, ChannelId, Generation, NodeState, NodeView, PeerId, Source,
};
use espalier_shards::{Leadership, Replica as _};

use crate::node::Node;
use crate::world::World;

/// Verifies the replicated state of every node, and that engines believe what it says.
pub(crate) fn look(world: &World) {
    let audit = &world.context.audit;
    for (id, node) in &world.nodes {
        let (at, replica) = node.me.group.state();
        if let Some(at) = at {
            audit.state_seen(*id, at, replica.hash());
        }
    }
    let furthest = world
        .nodes
        .values()
        .max_by_key(|node| node.me.group.read(|at, _| at));
    if let Some(node) = furthest {
        rebuild(node, world);
    }
    for node in world.nodes.values() {
        compare(node, world);
    }
}

/// Whoever became owner now would have legal trees.
fn rebuild(node: &Node, world: &World) {
    let (at, replica) = node.me.group.state();
    for (channel, kept) in replica.state.channels() {
        let now = node.me.clock.at(world.context.now);
        let rebuilt = ChannelEngine::from_state(&kept.state, u64::MAX, now);
        if let Some(finding) = rebuilt.check().first() {
            let of = finding.peer.and_then(|peer| kept.state.peer(peer));
            let rows = rebuilt.topology().into_iter();
            let rows: Vec<_> = rows.filter(|row| Some(row.peer) == finding.peer).collect();
            let detail = format!("{channel} rebuilt at {at:?}: {finding:?}; {of:?}; {rows:?}");
            world
                .context
                .audit
                .violated("planner invariants of the records", detail);
        }
    }
}

/// An owner's engine of which nothing is on its way to the log believes what the records say.
fn compare(node: &Node, world: &World) {
    let (_, replica) = node.me.group.state();
    let term = node.leadership.leading_term();
    let now = node.me.clock.at(world.context.now);
    for (channel, engine, idle) in node.engines() {
        let Some(kept) = replica.state.channel(channel).filter(|_| idle) else {
            continue;
        };
        let leads = node.me.group.current_leadership().leading_term();
        if term != Some(engine.generation().term) || leads != term {
            continue;
        }
        let rebuilt = ChannelEngine::from_state(&kept.state, engine.generation().term, now);
        if let Some(difference) = difference(engine, &rebuilt) {
            let detail = format!("{channel} at node {}: {difference}", node.me.life.node);
            world
                .context
                .audit
                .violated("engines believe the records", detail);
        }
    }
}

/// What differs between an owner's engine and one that is made from the records, but for what is known only
/// through sessions.
fn difference(live: &ChannelEngine, rebuilt: &ChannelEngine) -> Option<String> {
    let live = live
        .topology()
        .into_iter()
        .filter(|row| row.source.is_some());
    let (live, rebuilt): (Vec<_>, _) = (live.collect(), rebuilt.topology());
    if live.len() != rebuilt.len() {
        return Some(format!(
            "{} places, {} in the records",
            live.len(),
            rebuilt.len()
        ));
    }
    for (row, live) in rebuilt.into_iter().zip(live) {
        let state = match live.state {
            NodeState::Repairing | NodeState::Bypass => row.state,
            state @ (NodeState::Joining | NodeState::Active | NodeState::Moving) => state,
        };
        let live = NodeView {
            session: false,
            health: None,
            state,
            ..live
        };
        if live != row {
            return Some(format!("{live:?}, in the records {row:?}"));
        }
    }
    None
}

/// Why the world is not at rest; `None`: it is.
pub(crate) fn restless(world: &World) -> Option<String> {
    let nodes: Vec<&Node> = world.nodes.values().collect();
    if nodes.len() as u64 != world.plan.nodes {
        return Some(format!("{} nodes run", nodes.len()));
    }
    let leaders = nodes
        .iter()
        .filter_map(|node| node.leadership.leading_term().map(|term| (*node, term)));
    let leaders: Vec<_> = leaders.collect();
    let [(leader, term)] = leaders[..] else {
        return Some(format!("{} nodes lead", leaders.len()));
    };
    let followed = Leadership::Follower {
        leader: leader.me.life.node,
        term,
    };
    let astray =
        |node: &&&Node| node.me.life.node != leader.me.life.node && node.leadership != followed;
    if let Some(astray) = nodes.iter().find(astray) {
        return Some(format!(
            "node {} is {:?}",
            astray.me.life.node, astray.leadership
        ));
    }
    let states: Vec<_> = nodes.iter().map(|node| node.me.group.state()).collect();
    let hashes: Vec<_> = states
        .iter()
        .map(|(at, replica)| (*at, replica.hash()))
        .collect();
    if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some(format!("states differ: {hashes:x?}"));
    }
    let (_, replica) = states.into_iter().next()?;
    let engines: BTreeMap<_, _> = leader
        .engines()
        .map(|(channel, engine, idle)| (channel.clone(), (engine, idle)))
        .collect();
    for channel in world.channels() {
        let Some(kept) = replica.state.channel(channel) else {
            return Some(format!("{channel} is gone"));
        };
        let Some((engine, idle)) = engines.get(channel) else {
            return Some(format!("{channel} has no actor"));
        };
        if !idle {
            return Some(format!("{channel} is deciding"));
        }
        let restless = unserved(world, channel, &kept.state, engine);
        if restless.is_some() {
            return restless;
        }
    }
    None
}

/// Whom the channel's owner has not told what the records say, or who is in them and not there.
fn unserved(
    world: &World,
    channel: &ChannelId,
    state: &ChannelState,
    engine: &ChannelEngine,
) -> Option<String> {
    let known: Vec<PeerId> = state.peers().map(|(peer, _)| peer).collect();
    let present = world.present(channel);
    if known != present {
        return Some(format!("{channel} has {known:?}, there are {present:?}"));
    }
    if let Some(finding) = engine.check().first() {
        return Some(format!("{channel}: {finding:?}"));
    }
    for (id, record) in state.peers() {
        let peer = world.audience.peers.get(&id)?;
        let Some(assignment) = peer
            .assignment
            .as_ref()
            .filter(|_| peer.wire.is_some() && peer.welcomed)
        else {
            return Some(format!("{id} has no session or no assignment"));
        };
        let told = record.told.map(|told| generation(state, told.at));
        if told != Some(assignment.generation) {
            return Some(format!(
                "{id} holds {}, was told {told:?}",
                assignment.generation
            ));
        }
        let mut edges: Vec<(&str, Source)> = Vec::new();
        for edge in &record.edges {
            let track = state
                .tracks()
                .iter()
                .find(|track| track.index == edge.track)?;
            edges.push((track.name.as_str(), edge.edge.source));
        }
        edges.sort();
        let held = assignment
            .tracks
            .iter()
            .map(|track| (track.track.as_str(), track.source));
        let mut held: Vec<_> = held.collect();
        held.sort();
        if edges != held {
            return Some(format!("{id} does {held:?}, decided is {edges:?}"));
        }
        let awaited = record
            .edges
            .iter()
            .find(|edge| !is_awaited(world, id, edge, state));
        if let Some(edge) = awaited {
            return Some(format!("{id} is not awaited by {:?}", edge.edge.source));
        }
    }
    None
}

/// Whether the peer that an edge names as the source has been told of the child.
fn is_awaited(world: &World, child: PeerId, edge: &EdgeRecord, state: &ChannelState) -> bool {
    let Source::Peer(parent) = edge.edge.source else {
        return true;
    };
    let track = state
        .tracks()
        .iter()
        .find(|track| track.index == edge.track);
    let told = world
        .audience
        .peers
        .get(&parent)
        .and_then(|parent| parent.assignment.as_ref());
    let mut children = told.into_iter().flat_map(|told| &told.children);
    children.any(|told| {
        !told.standby && told.peer == child && track.is_some_and(|track| track.name == told.track)
    })
}

fn generation(state: &ChannelState, at: LogPosition) -> Generation {
    Generation {
        incarnation: state.incarnation(),
        term: at.term,
        index: at.index,
    }
}
