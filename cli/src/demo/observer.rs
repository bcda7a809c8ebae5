//! Looks at the demo once a second.

use std::time::Duration;

use espalier_proto::v1;
use futures::StreamExt;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::leadership::Leads;
use super::nodes::Crew;
use super::peer_stats::PeerStats;
use super::picture::Picture;
use super::stage::{CHANNEL, PeerAddress, Stage};
use crate::channel::resource;
use crate::connection::Connection;
use crate::origin::Traffic;
use crate::topology::Topology;

const INTERVAL: Duration = Duration::from_secs(1);

/// How often the nodes are looked at: a failover takes less than a second.
const NODES_INTERVAL: Duration = Duration::from_millis(200);

/// How long a node may take to say who leads.
const NODE_PATIENCE: Duration = Duration::from_secs(1);

/// Tasks that keep a [`Picture`] current; they end when dropped.
pub(crate) struct Observer {
    tasks: [JoinHandle<()>; 3],
}

impl Observer {
    /// Starts to look at what is on the stage.
    pub(crate) fn start(stage: &Stage, nodes: Vec<Connection>) -> (Self, watch::Receiver<Picture>) {
        let mut first = Picture::new(stage.addresses().len(), stage.stream());
        first.dashboard = stage.dashboard();
        first.player = stage.player();
        let (publish, picture) = watch::channel(first);
        let tasks = [
            tokio::spawn(follow_topology(nodes.clone(), publish.clone())),
            tokio::spawn(follow_nodes(stage.crew().clone(), nodes, publish.clone())),
            tokio::spawn(measure(
                stage.addresses().to_vec(),
                stage.traffic(),
                publish,
            )),
        ];
        (Self { tasks }, picture)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn measure(peers: Vec<PeerAddress>, traffic: Traffic, picture: watch::Sender<Picture>) {
    // Peers are on this machine, wherever the environment wants other requests to go.
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap_or_default();
    let started = Instant::now();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = peers.iter().map(async |address| {
            PeerStats::ask(&client, &address.url)
                .await
                .map(|stats| (address.peer.clone(), stats))
        });
        let stats: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        picture.send_modify(|picture| {
            picture.update(started.elapsed(), traffic.totals(), stats);
            picture.keep_time(unix_ms());
            if picture.url.is_none() && picture.formed_after.is_some() {
                picture.url = deepest(&picture.topology, &peers);
            }
        });
    }
}

/// The best seat is the one farthest from the CDN; it shows what the tree does.
fn deepest(topology: &Topology, peers: &[PeerAddress]) -> Option<String> {
    let node = topology
        .nodes
        .iter()
        .max_by_key(|node| (node.depth, &node.peer))?;
    peers
        .iter()
        .find(|address| address.peer == node.peer)
        .map(|address| address.url.clone())
}

/// Follows the trees at any node that shows them: while one does, there is nothing to tell them apart.
async fn follow_topology(nodes: Vec<Connection>, picture: watch::Sender<Picture>) {
    for connection in nodes.iter().cycle() {
        let request = v1::WatchTopologyRequest {
            channel: resource(CHANNEL),
        };
        let problem = match connection.topologies().watch_topology(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.next().await {
                        Some(Ok(wire)) => picture.send_modify(|picture| {
                            picture.topology = with_fresh_figures(wire.into(), picture);
                            picture.problem = None;
                        }),
                        Some(Err(status)) => break status.message().to_owned(),
                        None => break "the orchestrator ended the stream".to_owned(),
                    }
                }
            }
            Err(status) => status.message().to_owned(),
        };
        picture.send_modify(|picture| picture.problem = Some(problem));
        tokio::time::sleep(NODES_INTERVAL).await;
    }
}

/// Looks which nodes run and who leads what.
async fn follow_nodes(crew: Crew, nodes: Vec<Connection>, picture: watch::Sender<Picture>) {
    let mut ticks = interval(NODES_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let processes = crew.look();
        let mut leads = None;
        for (_, node) in processes
            .iter()
            .zip(&nodes)
            .filter(|(it, _)| it.pid.is_some())
        {
            leads = ask_who_leads(node).await;
            if leads.is_some() {
                break;
            }
        }
        picture.send_if_modified(|picture| {
            let before = picture.leadership.clone();
            picture.leadership.update(processes, leads);
            picture.leadership != before
        });
    }
}

async fn ask_who_leads(node: &Connection) -> Option<Leads> {
    let mut clusters = node.clusters();
    let asked = clusters.get_cluster(v1::GetClusterRequest::default());
    let answer = tokio::time::timeout(NODE_PATIENCE, asked).await.ok()?;
    Some(answer.ok()?.into_inner().into())
}

fn unix_ms() -> i64 {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// A peer's own figures are newer than those that the orchestrator passes on.
fn with_fresh_figures(mut topology: Topology, picture: &Picture) -> Topology {
    for node in &mut topology.nodes {
        if let Some(stats) = picture.stats.get(&node.peer) {
            node.health = Some(stats.health());
        }
    }
    topology
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fixtures::topology;

    #[test]
    fn the_best_seat_is_the_farthest() {
        let mut tree = topology(&[("a", "cdn"), ("b", "a"), ("c", "a")]);
        for (node, depth) in tree.nodes.iter_mut().zip([1, 2, 2]) {
            node.depth = depth;
        }
        let address = |peer: &str| PeerAddress {
            peer: peer.into(),
            url: format!("http://{peer}/"),
        };
        let peers = [address("a"), address("b"), address("c")];
        assert_eq!(deepest(&tree, &peers), Some("http://c/".to_owned()));
        assert_eq!(deepest(&Topology::default(), &peers), None);
    }
}
