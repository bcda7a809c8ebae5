//! The shell of the reset path: one task a node, for all its groups and all other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_shards::reset::{ResetCommand, ResetPath, SeenVote};
use espalier_shards::{GroupId, NodeId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::network::lines::Lines;
use crate::network::presence::{self, News};
use crate::standing::{Neighbours, Standing};

/// What the task needs of a group.
pub(crate) struct Watched {
    pub(crate) group: GroupId,
    pub(crate) votes: BoxStream<'static, (SeenVote, Vec<NodeId>)>,
    pub(crate) drop_lease: Arc<dyn Fn(SeenVote) -> BoxFuture<'static, ()> + Send + Sync>,
    pub(crate) elect: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

/// Which other nodes there are and where, and whether they are there.
pub(crate) struct ResetTask {
    me: NodeId,
    lines: Lines,
    nodes: watch::Receiver<BTreeMap<NodeId, String>>,
    neighbours: watch::Sender<Neighbours>,
    removed: watch::Sender<bool>,
    watches: BTreeMap<NodeId, (String, JoinHandle<()>)>,
    tell: mpsc::Sender<presence::Told>,
    told: mpsc::Receiver<presence::Told>,
}

impl ResetTask {
    pub(crate) fn new(
        me: NodeId,
        lines: Lines,
        nodes: watch::Receiver<BTreeMap<NodeId, String>>,
        neighbours: watch::Sender<Neighbours>,
        removed: watch::Sender<bool>,
    ) -> Self {
        let (tell, told) = mpsc::channel(64);
        ResetTask {
            me,
            lines,
            nodes,
            neighbours,
            removed,
            watches: BTreeMap::new(),
            tell,
            told,
        }
    }

    /// Runs until the nodes' sender or all groups are gone.
    pub(crate) async fn run(mut self, groups: Vec<Watched>) {
        let begun = Instant::now();
        let mut path = ResetPath::new(self.me);
        let mut votes = SelectAll::new();
        let mut hands = BTreeMap::new();
        for watched in groups {
            let group = watched.group;
            votes.push(watched.votes.map(move |seen| (group, seen)).boxed());
            hands.insert(group, (watched.drop_lease, watched.elect));
        }
        self.follow_nodes();
        loop {
            let due = path.poll_timeout().map(|due| begun + due);
            tokio::select! {
                seen = votes.next() => {
                    let Some((group, (vote, voters))) = seen else { break };
                    path.handle_voters(group, voters);
                    path.handle_vote(group, vote, begun.elapsed());
                }
                Some((node, news)) = self.told.recv() => {
                    tracing::debug!(node, ?news, "the line to another node");
                    match news {
                        News::Link(event) => {
                            self.note(node, event);
                            path.handle_link(node, event, begun.elapsed());
                        }
                        News::Says { standing, removed } => self.hear(node, standing, removed),
                    }
                }
                changed = self.nodes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_nodes();
                }
                () = sleep_until(due) => path.handle_timeout(begun.elapsed()),
            }
            while let Some(command) = path.poll_command() {
                tracing::debug!(?command, "reset path");
                match command {
                    ResetCommand::DropLease { group, vote } => (hands[&group].0)(vote).await,
                    ResetCommand::Elect { group } => (hands[&group].1)().await,
                }
            }
        }
        for (_, watch) in self.watches.into_values() {
            watch.abort();
        }
    }

    fn note(&self, node: NodeId, event: espalier_shards::reset::LinkEvent) {
        use espalier_shards::reset::LinkEvent;
        let open = match event {
            LinkEvent::Opened | LinkEvent::OpenedToAnother => true,
            LinkEvent::Broken | LinkEvent::Refused => false,
        };
        let changed = self.neighbours.send_if_modified(|nodes| {
            let neighbour = nodes.entry(node).or_default();
            std::mem::replace(&mut neighbour.reachable, open) != open
        });
        match (changed, open) {
            (true, true) => tracing::info!(node, "another node is reached"),
            (true, false) => tracing::warn!(node, "another node is not reached any more"),
            (false, _) => {}
        }
    }

    fn hear(&self, node: NodeId, standing: Standing, removed: bool) {
        self.neighbours.send_if_modified(|nodes| {
            let neighbour = nodes.entry(node).or_default();
            let changed = neighbour.standing != standing;
            neighbour.standing = standing;
            changed
        });
        // What is out stays out.
        if removed && !self.removed.send_replace(true) {
            tracing::error!(by = node, "this node was removed from its cluster");
        }
    }

    fn follow_nodes(&mut self) {
        let nodes = self.nodes.borrow_and_update().clone();
        let stays = |node: &NodeId, address: &String| nodes.get(node) == Some(address);
        self.watches.retain(|node, (address, watch)| {
            let stays = stays(node, address);
            if !stays {
                watch.abort();
            }
            stays
        });
        self.neighbours.send_if_modified(|known| {
            let before = known.len();
            known.retain(|node, _| nodes.contains_key(node));
            known.len() != before
        });
        for (node, address) in nodes {
            if node == self.me || address.is_empty() || self.watches.contains_key(&node) {
                continue;
            }
            let (lines, tell) = (self.lines.clone(), self.tell.clone());
            let watching = presence::watch(lines, self.me, node, address.clone(), tell);
            self.watches.insert(node, (address, tokio::spawn(watching)));
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
