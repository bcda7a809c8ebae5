//! `espalier.v1.ClusterService`.
//!
//! Any node answers: what is wanted of the cluster is written wherever the meta group is led. Only a move of a
//! leadership is forwarded, to the node that leads.

use core::pin::Pin;
use core::time::Duration;
use std::collections::BTreeMap;

use espalier_cluster::{ChangeError, ClusterHandle};
use espalier_orchestrator_core::state::MetaState;
use espalier_proto::v1;
use espalier_proto::v1::cluster_service_client::ClusterServiceClient;
use espalier_proto::v1::cluster_service_server::ClusterService;
use espalier_shards::{Group, GroupId, NodeId};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::cluster_view::{ClusterView, node_name};
use super::forward::{answer, forwarded, is_forwarded};
use crate::status::{ClusterError, Violation, invalid};

/// How often a watched cluster is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The service.
pub(crate) struct ClusterApi {
    cluster: ClusterHandle,
    stopping: CancellationToken,
}

impl ClusterApi {
    pub(crate) fn new(cluster: ClusterHandle, stopping: CancellationToken) -> Self {
        Self { cluster, stopping }
    }

    async fn view(&self, local: bool) -> Result<ClusterView, Status> {
        let state = match local {
            true => self.cluster.meta().state().1,
            false => self
                .cluster
                .current_meta()
                .await
                .map_err(ClusterError::from)?,
        };
        Ok(self.view_of(state))
    }

    fn view_of(&self, state: MetaState) -> ClusterView {
        let held =
            |shard: &espalier_cluster::ShardGroup| shard.read(|_, state| state.channel_count());
        let shards = self.cluster.shards().iter();
        ClusterView {
            state,
            this: self.cluster.identity().node,
            own: self.cluster.standing(),
            neighbours: self.cluster.neighbours().borrow().clone(),
            statuses: self.cluster.statuses(),
            channels: shards
                .map(|shard| (Group::id(shard), held(shard)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    /// The node as it is after a change; one that is gone meanwhile, as it was before.
    async fn changed(
        &self,
        node: NodeId,
        before: Option<v1::ClusterNode>,
    ) -> Result<Response<v1::ClusterNode>, Status> {
        let now = self.view(false).await?.node(node).or(before);
        let gone = || ClusterError(ChangeError::UnknownNode(node));
        Ok(Response::new(now.ok_or_else(gone)?))
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        let view = self.view(request.get_ref().local).await?;
        Ok(Response::new(view.cluster()))
    }

    type WatchClusterStream = Pin<Box<dyn Stream<Item = Result<v1::Cluster, Status>> + Send>>;

    async fn watch_cluster(
        &self,
        _request: Request<v1::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        let api = Self::new(self.cluster.clone(), self.stopping.clone());
        let ticks = tokio::time::interval(LOOK_EVERY);
        let start = (api, ticks, None::<v1::Cluster>);
        let states = futures::stream::unfold(start, |(api, mut ticks, last)| async move {
            loop {
                ticks.tick().await;
                let now = api.view_of(api.cluster.meta().state().1).cluster();
                if last.as_ref() != Some(&now) {
                    return Some((Ok(now.clone()), (api, ticks, Some(now))));
                }
            }
        });
        // A node that stops ends its streams: whoever watches asks another.
        let ending = self.stopping.clone().cancelled_owned();
        Ok(Response::new(Box::pin(states.take_until(ending))))
    }

    async fn add_node(
        &self,
        request: Request<v1::AddNodeRequest>,
    ) -> Result<Response<v1::ClusterNode>, Status> {
        let address = request.into_inner().cluster_address;
        check_address(&address)?;
        let node = self.cluster.add_node(&address).await;
        let node = node.map_err(ClusterError)?;
        tracing::info!(node, address, "a node was added");
        self.changed(node, None).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::ClusterNode>, Status> {
        let node = node_id("name", &request.get_ref().name)?;
        let before = self.view(false).await?.node(node);
        self.cluster.remove_node(node).await.map_err(ClusterError)?;
        tracing::info!(node, "a node is to leave");
        let leaving = before.map(|before| v1::ClusterNode {
            state: v1::ClusterNodeState::Leaving.into(),
            ..before
        });
        self.changed(node, leaving).await
    }

    async fn transfer_shard(
        &self,
        request: Request<v1::TransferShardRequest>,
    ) -> Result<Response<v1::Shard>, Status> {
        let group = group_id(&request.get_ref().name)?;
        let to = node_id("node", &request.get_ref().node)?;
        let statuses = self.cluster.statuses();
        let status = statuses.iter().find(|status| status.group == group);
        let status = status.ok_or(ClusterError(ChangeError::UnknownGroup(group)))?;
        if !self
            .view(true)
            .await?
            .state
            .nodes()
            .keys()
            .any(|node| node.0 == to)
        {
            return Err(ClusterError(ChangeError::UnknownNode(to)).into());
        }
        let not_led = || ClusterError(ChangeError::NotLeader(group));
        let leader = status.leader.ok_or_else(not_led)?;
        if leader != self.cluster.identity().node {
            if is_forwarded(&request) {
                return Err(not_led().into());
            }
            let transport = self.cluster.transport(leader).ok_or_else(not_led)?;
            let request = forwarded(request.into_inner());
            let mut client = ClusterServiceClient::new(transport);
            return answer(client.transfer_shard(request).await);
        }
        let moved = self.cluster.transfer(group, to).await;
        let moved = moved.map_err(ClusterError)?;
        tracing::info!(%group, to, "a leader moved, as it was asked to");
        Ok(Response::new(self.view(true).await?.shard(&moved)))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::ClusterNode>, Status> {
        let v1::DrainNodeRequest { name, undo } = request.into_inner();
        let node = node_id("name", &name)?;
        let drained = self.cluster.drain_node(node, undo).await;
        drained.map_err(ClusterError)?;
        tracing::info!(node, undo, "a node is to be drained, or no more");
        self.changed(node, None).await
    }
}

fn bad(field: &str, problem: String) -> Status {
    let field = field.to_owned();
    invalid(vec![Violation { field, problem }])
}

fn node_id(field: &str, name: &str) -> Result<NodeId, Status> {
    let id = name.strip_prefix("nodes/").and_then(|id| id.parse().ok());
    // Only the canonical form names a node.
    id.filter(|id| node_name(*id) == name)
        .ok_or_else(|| bad(field, "must be of the form nodes/{id}".to_owned()))
}

fn group_id(name: &str) -> Result<GroupId, Status> {
    let id = match name.strip_prefix("shards/") {
        Some("meta") => Some(0),
        Some(number) => number.parse().ok().filter(|number| *number > 0),
        None => None,
    };
    let form = "must be shards/meta or of the form shards/{number}";
    id.map(GroupId).ok_or_else(|| bad("name", form.to_owned()))
}

fn check_address(address: &str) -> Result<(), Status> {
    let host_and_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host_is = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.contains(':') && url::Host::parse(host).is_ok(),
        };
        host_is && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    match host_and_port {
        true => Ok(()),
        false => Err(bad(
            "cluster_address",
            "must be a host and a port, such as 10.0.0.4:7301".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_have_one_form() {
        assert_eq!(node_id("name", "nodes/7").unwrap(), 7);
        for wrong in [
            "",
            "7",
            "nodes/",
            "nodes/+7",
            "nodes/07",
            "nodes/x",
            "nodes/1/2",
        ] {
            assert!(node_id("name", wrong).is_err(), "{wrong}");
        }
        assert_eq!(group_id("shards/meta").unwrap(), GroupId(0));
        assert_eq!(group_id("shards/16").unwrap(), GroupId(16));
        for wrong in ["", "meta", "shards/", "shards/0", "shards/x"] {
            assert!(group_id(wrong).is_err(), "{wrong}");
        }
        for good in ["10.0.0.4:7301", "node-4.example:1", "[::1]:7301"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "10.0.0.4",
            ":7301",
            "a:0",
            "a:x",
            "::1:7301",
            "http://a:1",
            "a b:1",
            "[a]:1",
        ] {
            assert!(check_address(wrong).is_err(), "{wrong}");
        }
    }
}
