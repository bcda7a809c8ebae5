//! What the cluster's scenes share.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::cli::Cli;
use espalier_e2e::ground::Ground;
use espalier_e2e::joiner::{Door, Joined, Joiner, Load};
use espalier_e2e::orchestrator::Keeping;
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::statistics::float_ms;
use espalier_e2e::stats::Generation;
use espalier_e2e::wait::wait_until;
use espalier_e2e::{Process, Scene, Tree};

use crate::steady::{Coming, FORMING, tree_of_twelve};

/// Within this, whatever a cluster must do is done, unless it never is.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How many channels may be made until each group has one; a name's hash says where it goes.
const MOST_CHANNELS: u32 = 120;
/// How long each session of the load stays.
const STAY: Duration = Duration::from_millis(200);

/// An edge: track, child, source.
type Edge = (String, String, String);

/// Three nodes with the node's own signers.
pub(super) fn three_nodes() -> Setup {
    Setup {
        keeping: Keeping::Everything,
        cluster: vec![Ground::Plain; 3],
        ..Setup::default()
    }
}

/// How often, or for how many seconds, something is done: as the environment says, or as given.
pub(super) fn times(variable: &str, otherwise: u32) -> u32 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The twelve, their tree, and the channels beside theirs.
pub(super) struct Stage {
    pub(super) joiner: Joiner,
    /// A channel in each group but the meta group.
    pub(super) doors: BTreeMap<String, Door>,
    /// The group of the twelve's channel.
    pub(super) home: String,
    edges: BTreeSet<Edge>,
    processes: BTreeSet<u32>,
    generations: BTreeMap<String, Generation>,
    _signer: Process,
}

impl Stage {
    /// Has the audience come and watch, and a channel made in every group.
    pub(super) fn set(scene: &mut Scene) -> Result<Self> {
        wait_until_whole(scene)?;
        // A group that is between two leaders is shown without its channels.
        let home = wait_until("the group of the only channel is known", PATIENCE, || {
            let status = scene.cli.status()?;
            Ok(status.only_shard().map(|home| home.shard.clone()))
        })?;
        let signer = scene.start_signer("load-signer")?;
        let doors = one_channel_in_each_group(scene, &signer)?;
        tree_of_twelve(scene, Coming::InWaves)?;
        let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
        for id in ids {
            scene.watch(&id, 0)?;
        }
        wait_until("every player has received something", PATIENCE, || {
            let all = scene.viewers.iter().all(|it| !it.received().is_empty());
            Ok(all.then_some(()))
        })?;
        let processes = scene.peers.iter().map(|peer| peer.process.id()).collect();
        let mut stage = Self {
            joiner: Joiner::new()?,
            doors,
            home,
            edges: BTreeSet::new(),
            processes,
            generations: BTreeMap::new(),
            _signer: signer,
        };
        stage.remember(scene)?;
        Ok(stage)
    }

    /// Takes the tree as it is, once it is settled, for what must be kept.
    pub(super) fn remember(&mut self, scene: &Scene) -> Result<()> {
        let tree =
            scene.wait_for_tree("a settled tree", FORMING, |tree| tree.roots().len() == 1)?;
        self.edges = edges(&tree);
        self.obeyed_nothing_stale(scene)
    }

    /// Demands that the tree has the edges that were remembered, as `cli` has it.
    pub(super) fn expect_same_edges(&self, cli: &Cli) -> Result<()> {
        let tree = wait_until("the tree is shown", PATIENCE, || {
            Ok(Some(cli.tree(CHANNEL)?))
        })?;
        let now = edges(&tree);
        ensure!(
            now == self.edges,
            "edges changed:\ngone {:?}\nnew {:?}",
            self.edges.difference(&now).collect::<Vec<_>>(),
            now.difference(&self.edges).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// Demands that no peer went back to an older assignment than one that it had obeyed before.
    pub(super) fn obeyed_nothing_stale(&mut self, scene: &Scene) -> Result<()> {
        for stats in scene.all_stats()? {
            let before = self
                .generations
                .insert(stats.peer.clone(), stats.generation);
            ensure!(
                before.is_none_or(|before| before <= stats.generation),
                "{} went from {before:?} back to {:?}",
                stats.peer,
                stats.generation
            );
        }
        Ok(())
    }

    /// Demands that each peer takes the stream from where the tree says.
    pub(super) fn expect_obedience(&self, scene: &Scene) -> Result<()> {
        wait_until("every peer does what the tree says", PATIENCE, || {
            let tree = scene.tree()?;
            for stats in scene.all_stats()? {
                let place = tree.place(&stats.peer).context("a place")?;
                let source = stats.tracks.first().and_then(|track| track.source.clone());
                ensure!(
                    source == place.source,
                    "{} takes from {source:?}, not from {:?}",
                    stats.peer,
                    place.source
                );
            }
            Ok(Some(()))
        })
    }

    /// Has sessions come and go in every group, by every node.
    pub(super) fn load(&self, scene: &Scene) -> Result<Vec<Load>> {
        let endpoints = endpoints(scene);
        let doors = self.doors.values();
        doors
            .map(|door| self.joiner.load(door, &endpoints, STAY))
            .collect()
    }

    /// A session in every group, by every node; each has its assignment, so each is acknowledged.
    pub(super) fn acknowledged(&self, scene: &Scene) -> Result<Vec<(Door, Joined)>> {
        let mut joins = Vec::new();
        for endpoint in endpoints(scene) {
            for door in self.doors.values() {
                joins.push((door.clone(), self.joiner.begin(door, &endpoint)?));
            }
        }
        joins
            .into_iter()
            .map(|(door, join)| Ok((door, join.wait(PATIENCE)?)))
            .collect()
    }

    /// Demands that every acknowledged session has its place.
    pub(super) fn expect_kept(&self, cli: &Cli, acknowledged: &[(Door, Joined)]) -> Result<()> {
        for door in self.doors.values() {
            let tree = wait_until("the tree is shown", PATIENCE, || {
                Ok(Some(cli.tree(&door.channel)?))
            })?;
            let peers = tree.peers();
            for (of, joined) in acknowledged {
                ensure!(
                    of.channel != door.channel || peers.contains(joined.peer.as_str()),
                    "{} was told its place in {} and has none",
                    joined.peer,
                    door.channel
                );
            }
        }
        Ok(())
    }

    /// Joins once in each of these groups by each of these nodes, and says after how many milliseconds from `since` the
    /// first was answered in each group.
    pub(super) fn first_joins(
        &self,
        groups: &BTreeSet<String>,
        endpoints: &[String],
        since: Instant,
    ) -> Result<BTreeMap<String, f64>> {
        let mut joins = Vec::new();
        for group in groups {
            let door = self.doors.get(group).context("a channel in each group")?;
            for endpoint in endpoints {
                joins.push((group.clone(), self.joiner.begin(door, endpoint)?));
            }
        }
        let mut first: BTreeMap<String, f64> = BTreeMap::new();
        for (group, join) in joins {
            let joined = join.wait(PATIENCE)?;
            let took = joined.at.saturating_duration_since(since).as_micros();
            let took = float_ms(i64::try_from(took)?) / 1000.0;
            let best = first.entry(group).or_insert(took);
            *best = best.min(took);
        }
        Ok(first)
    }

    /// The end of every scene: nobody stalled, missed or repeated anything, or was started again.
    pub(super) fn expect_nobody_noticed(&mut self, scene: &mut Scene) -> Result<()> {
        let compared = scene.expect_flawless("seg")?;
        scene
            .figures
            .record("segments_played_and_compared", compared)?;
        for stats in scene.all_stats()? {
            ensure!(
                stats.playout.stalls == 0,
                "{} stalled: {:?}",
                stats.peer,
                stats.playout
            );
        }
        self.obeyed_nothing_stale(scene)?;
        for peer in &mut scene.peers {
            ensure!(peer.process.is_running()?, "{} ended", peer.id);
        }
        let processes = scene.peers.iter().map(|peer| peer.process.id()).collect();
        ensure!(self.processes == processes, "a peer was started again");
        Ok(())
    }
}

pub(super) fn endpoints(scene: &Scene) -> Vec<String> {
    scene
        .nodes
        .iter()
        .map(|node| node.endpoint.clone())
        .collect()
}

/// The endpoints of every node but one.
pub(super) fn endpoints_without(scene: &Scene, node: usize) -> Vec<String> {
    let mut all = endpoints(scene);
    all.remove(node);
    all
}

/// Who leads the group, as a place in the scene's nodes, and which groups it leads beside.
pub(super) fn owner_of(scene: &Scene, group: &str) -> Result<(usize, BTreeSet<String>)> {
    wait_until("the group has a leader", PATIENCE, || {
        let status = scene.cli.status()?;
        let Some(leader) = status.shard(group).and_then(|shard| shard.leader) else {
            return Ok(None);
        };
        let led = status
            .shards
            .iter()
            .filter(|shard| shard.leader == Some(leader));
        let led = led
            .map(|shard| shard.shard.clone())
            .filter(|it| it != "meta");
        let node = scene.nodes.iter().position(|node| node.number == leader);
        Ok(Some((node.context("a node of ours")?, led.collect())))
    })
}

/// Waits until every node hears of every other and every group is led.
pub(super) fn wait_until_whole(scene: &Scene) -> Result<()> {
    wait_until("the cluster is whole", PATIENCE, || {
        Ok(scene.cli.status()?.is_whole().then_some(()))
    })
}

/// The edges between real peers, and from the CDN to them.
fn edges(tree: &Tree) -> BTreeSet<Edge> {
    let owned = |(track, child, source): (&str, &str, &str)| {
        (track.to_owned(), child.to_owned(), source.to_owned())
    };
    tree.edges().into_iter().map(owned).collect()
}

/// Makes channels until each group has one more than the scene's own, and keeps one of each.
fn one_channel_in_each_group(scene: &Scene, signer: &Process) -> Result<BTreeMap<String, Door>> {
    let mut before = channels_by_group(scene)?;
    let mut doors = BTreeMap::new();
    for number in 0..MOST_CHANNELS {
        if doors.len() == before.len() {
            break;
        }
        let name = format!("load-{number}");
        let door = scene.create_channel(&name, signer)?;
        // A node tells what it has applied, which may be late.
        let (group, now) = wait_until("a group has one more channel", PATIENCE, || {
            let now = channels_by_group(scene)?;
            let mut more = now
                .iter()
                .filter(|(group, it)| before.get(*group) < Some(it));
            let group = more.next().map(|(group, _)| group.clone());
            Ok(group.map(|group| (group, now)))
        })?;
        match doors.entry(group) {
            Entry::Occupied(_) => {
                scene.cli.text(&["channel", "delete", &name])?;
                wait_until("the channel is gone", PATIENCE, || {
                    Ok((channels_by_group(scene)? == before).then_some(()))
                })?;
            }
            Entry::Vacant(empty) => {
                empty.insert(door);
                before = now;
            }
        }
    }
    ensure!(
        doors.len() == before.len(),
        "{MOST_CHANNELS} channels lie in {} of {} groups",
        doors.len(),
        before.len()
    );
    Ok(doors)
}

fn channels_by_group(scene: &Scene) -> Result<BTreeMap<String, u32>> {
    let status = wait_until("the cluster's status", PATIENCE, || {
        Ok(Some(scene.cli.status()?))
    })?;
    let shards = status.shards.into_iter();
    let shards = shards.filter(|shard| shard.shard != "meta");
    Ok(shards.map(|shard| (shard.shard, shard.channels)).collect())
}
