//! `espalier.v1.TopologyService`.

use core::pin::Pin;
use std::sync::Arc;

use espalier_orchestrator_core::ChannelId;
use espalier_proto::v1;
use espalier_proto::v1::topology_service_client::TopologyServiceClient;
use espalier_proto::v1::topology_service_server::TopologyService;
use futures::Stream;
use tonic::{Request, Response, Status};

use super::forward::{Place, Router, answer, forwarded};
use super::resource::channel_id;
use super::{MAX_ANSWER, watch};
use crate::directory::{Channel, Directory};
use crate::translate;

/// The service.
pub(crate) struct TopologyApi {
    directory: Arc<Directory>,
    router: Router,
}

impl TopologyApi {
    pub(crate) fn new(directory: Arc<Directory>, router: Router) -> Self {
        Self { directory, router }
    }

    async fn find(&self, id: &ChannelId) -> Result<Arc<Channel>, Status> {
        Ok(self.directory.find_current(id).await?)
    }
}

fn client(
    transport: tonic::transport::Channel,
) -> TopologyServiceClient<tonic::transport::Channel> {
    TopologyServiceClient::new(transport).max_decoding_message_size(MAX_ANSWER)
}

#[tonic::async_trait]
impl TopologyService for TopologyApi {
    async fn get_topology(
        &self,
        request: Request<v1::GetTopologyRequest>,
    ) -> Result<Response<v1::Topology>, Status> {
        let id = channel_id("channel", &request.get_ref().channel)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(client(owner).get_topology(request).await);
        }
        let channel = self.find(&id).await?;
        let view = channel.actor()?.look().await?;
        Ok(Response::new(translate::topology_out(&view)))
    }

    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<v1::Topology, Status>> + Send>>;

    async fn watch_topology(
        &self,
        request: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let id = channel_id("channel", &request.get_ref().channel)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            let states = answer(client(owner).watch_topology(request).await)?;
            return Ok(Response::new(Box::pin(states.into_inner())));
        }
        let channel = self.find(&id).await?;
        let states = watch::states(channel, |_, view| translate::topology_out(view))?;
        Ok(Response::new(Box::pin(states)))
    }

    async fn check_topology(
        &self,
        request: Request<v1::CheckTopologyRequest>,
    ) -> Result<Response<v1::CheckTopologyResponse>, Status> {
        let id = channel_id("channel", &request.get_ref().channel)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(client(owner).check_topology(request).await);
        }
        let channel = self.find(&id).await?;
        let report = channel.actor()?.check().await?;
        Ok(Response::new(v1::CheckTopologyResponse {
            findings: report.findings.iter().map(translate::finding_out).collect(),
            peers_checked: u32::try_from(report.peers).unwrap_or(u32::MAX),
        }))
    }
}
