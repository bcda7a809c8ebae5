//! Clusters of real processes for tests.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use espalier_proto::v1::cluster_service_client::ClusterServiceClient;
use espalier_proto::v1::topology_service_client::TopologyServiceClient;
use espalier_token::ClusterKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::addresses::free_address;
use crate::command_line::http_get;
use crate::support::{Bearer, until};

type Authed = InterceptedService<Channel, Bearer>;

/// A cluster's key and what its nodes' configurations have in common.
pub(crate) struct ClusterDir {
    pub(crate) dir: TempDir,
    pub(crate) token: String,
    /// Lines for the `[limits]` of every node.
    limits: String,
    founders: Vec<SocketAddr>,
}

/// A node of the cluster, killed when it is dropped.
pub(crate) struct Member {
    pub(crate) child: Child,
    pub(crate) place: Place,
    token: String,
    pub(crate) transport: Channel,
}

/// Where a node is, and how it starts.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) between: SocketAddr,
    pub(crate) config: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl ClusterDir {
    pub(crate) fn new(limits: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (key, token) = ClusterKey::generate();
        std::fs::write(dir.path().join("cluster.key"), key.to_text()).unwrap();
        Self {
            dir,
            token,
            limits: limits.to_owned(),
            founders: Vec::new(),
        }
    }

    /// A cluster of so many nodes, all of them in service.
    pub(crate) async fn founded<const N: usize>(limits: &str) -> (Self, Vec<Member>) {
        let mut cluster = Self::new(limits);
        let between: [SocketAddr; N] = std::array::from_fn(|_| free_address());
        cluster.founders = between.to_vec();
        let places: Vec<Place> = (1..)
            .zip(between)
            .map(|(number, between)| cluster.place(number, between, true))
            .collect();
        let children: Vec<Child> = places.iter().map(Place::spawn).collect();
        let mut members = Vec::new();
        for (child, place) in children.into_iter().zip(places) {
            members.push(cluster.ready(child, place));
        }
        for member in &members {
            member.sees_in_service(N).await;
        }
        (cluster, members)
    }

    /// Where a further node is: one of those that make the cluster, or one that waits to be added.
    pub(crate) fn place(&self, number: usize, between: SocketAddr, founds: bool) -> Place {
        let (public, admin) = (free_address(), free_address());
        let config = self.dir.path().join(format!("node-{number}.toml"));
        let place = Place {
            number,
            public,
            admin,
            between,
            config,
        };
        self.configure(&place, founds);
        place
    }

    /// Writes a node's configuration.
    pub(crate) fn configure(&self, place: &Place, founds: bool) {
        let Place {
            number,
            public,
            admin,
            between,
            ..
        } = place;
        let list: Vec<_> = self.founders.iter().map(|it| format!("\"{it}\"")).collect();
        let bootstrap = match founds {
            true => format!("bootstrap = [{}]\n", list.join(", ")),
            false => String::new(),
        };
        let text = format!(
            "data_dir = \"node-{number}\"\nlisten = \"{public}\"\nadmin_listen = \"{admin}\"\n\
             [cluster]\nkey_file = \"cluster.key\"\nlisten = \"{between}\"\nadvertise = \"{between}\"\n\
             public_uri = \"http://{public}\"\nbetween_nodes = \"plain\"\n{bootstrap}[limits]\n{}\n",
            self.limits
        );
        std::fs::write(&place.config, text).unwrap();
    }

    /// Starts a node that has a place already; returns when it serves.
    pub(crate) fn start(&self, place: &Place) -> Member {
        self.ready(place.spawn(), place.clone())
    }

    /// Waits until a node serves.
    pub(crate) fn ready(&self, mut child: Child, place: Place) -> Member {
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("ESPALIER_ENDPOINT="), "{line}");
        let transport = Channel::from_shared(format!("http://{}", place.public));
        Member {
            child,
            place,
            token: self.token.clone(),
            transport: transport.unwrap().connect_lazy(),
        }
    }

    pub(crate) fn data(&self, place: &Place) -> PathBuf {
        self.dir.path().join(format!("node-{}", place.number))
    }
}

impl Place {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"));
        command.args(["--config", self.config.to_str().unwrap()]);
        command
    }

    pub(crate) fn spawn(&self) -> Child {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.spawn().unwrap()
    }

    /// Starts a node that will not get far; returns its exit code and what it says.
    pub(crate) fn fails(&self) -> (Option<i32>, String) {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        (child.wait().unwrap().code(), text)
    }
}

impl Member {
    pub(crate) fn channels(&self) -> ChannelServiceClient<Authed> {
        ChannelServiceClient::with_interceptor(self.transport.clone(), Bearer::new(&self.token))
    }

    pub(crate) fn clusters(&self) -> ClusterServiceClient<Authed> {
        ClusterServiceClient::with_interceptor(self.transport.clone(), Bearer::new(&self.token))
    }

    pub(crate) fn topologies(&self) -> TopologyServiceClient<Authed> {
        TopologyServiceClient::with_interceptor(self.transport.clone(), Bearer::new(&self.token))
    }

    /// The channel's tree, if it has an owner: who takes from whom.
    pub(crate) async fn tree(&self) -> Option<Vec<(String, Option<v1::Source>, u32)>> {
        let channel = "channels/news".to_owned();
        let topology = self
            .topologies()
            .get_topology(v1::GetTopologyRequest { channel })
            .await;
        let nodes = topology.ok()?.into_inner().nodes.into_iter();
        Some(
            nodes
                .map(|node| (node.peer, node.source, node.depth))
                .collect(),
        )
    }

    pub(crate) async fn owns_a_channel(&self) -> bool {
        let page = http_get(&self.place.admin.to_string(), "/metrics").await;
        page.is_some_and(|page| page.contains("espalier_orchestrator_channels 1"))
    }

    /// The cluster as this node shows it, if it can.
    pub(crate) async fn cluster(&self) -> Option<v1::Cluster> {
        let request = v1::GetClusterRequest::default();
        let answer = self.clusters().get_cluster(request).await;
        Some(answer.ok()?.into_inner())
    }

    /// The cluster's nodes by id, if there are any to be seen.
    pub(crate) async fn nodes(&self) -> Option<BTreeMap<u64, v1::ClusterNode>> {
        let nodes = self.cluster().await?.nodes.into_iter();
        let id = |name: &str| name.strip_prefix("nodes/").unwrap().parse().unwrap();
        Some(nodes.map(|node| (id(&node.name), node)).collect())
    }

    /// Waits until a node is as wanted, as seen from here; gone, it is `None`.
    pub(crate) async fn sees(&self, node: u64, wanted: impl Fn(Option<&v1::ClusterNode>) -> bool) {
        until(|| async { wanted(self.nodes().await?.get(&node)).then_some(()) }).await;
    }

    /// Waits until so many nodes are in service and heard here, and every group has a leader.
    pub(crate) async fn sees_in_service(&self, count: usize) {
        until(|| async {
            let cluster = self.cluster().await?;
            let active = |node: &&v1::ClusterNode| {
                node.state() == v1::ClusterNodeState::Active && node.reachable
            };
            let there = cluster.nodes.iter().filter(active).count() == count;
            let led = cluster.shards.iter().all(|shard| !shard.leader.is_empty());
            (there && led).then_some(())
        })
        .await;
    }

    pub(crate) async fn viewer_token(&self) -> String {
        let request = v1::IssueViewerTokenRequest {
            channel: "channels/news".to_owned(),
            ttl: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
        };
        let issued = self.channels().issue_viewer_token(request).await;
        issued.unwrap().into_inner().token
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_end(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        until(|| async { child.borrow_mut().try_wait().unwrap() }).await
    }
}

/// The id in a node's resource name, as the tests' nodes have it: founders in the order of their list.
pub(crate) fn name(node: u64) -> String {
    format!("nodes/{node}")
}
