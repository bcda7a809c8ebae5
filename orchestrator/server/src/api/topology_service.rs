//! `espalier.v1.TopologyService`.

use core::pin::Pin;
use std::sync::Arc;

use espalier_proto::v1;
use espalier_proto::v1::topology_service_server::TopologyService;
use futures::Stream;
use tonic::{Request, Response, Status};

use super::resource::channel_id;
use super::watch;
use crate::directory::{Channel, Directory};
use crate::status::ChannelError;
use crate::translate;

/// The service.
pub(crate) struct TopologyApi {
    directory: Arc<Directory>,
}

impl TopologyApi {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    fn find(&self, name: &str) -> Result<Arc<Channel>, ChannelError> {
        let id = channel_id("channel", name)?;
        self.directory.find(id.as_str())
    }
}

#[tonic::async_trait]
impl TopologyService for TopologyApi {
    async fn get_topology(
        &self,
        request: Request<v1::GetTopologyRequest>,
    ) -> Result<Response<v1::Topology>, Status> {
        let channel = self.find(&request.get_ref().channel)?;
        let view = channel.handle.look().await?;
        Ok(Response::new(translate::topology_out(&view)))
    }

    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<v1::Topology, Status>> + Send>>;

    async fn watch_topology(
        &self,
        request: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let channel = self.find(&request.get_ref().channel)?;
        let states = watch::states(channel, |_, view| translate::topology_out(view));
        Ok(Response::new(Box::pin(states)))
    }

    async fn check_topology(
        &self,
        request: Request<v1::CheckTopologyRequest>,
    ) -> Result<Response<v1::CheckTopologyResponse>, Status> {
        let channel = self.find(&request.get_ref().channel)?;
        let report = channel.handle.check().await?;
        Ok(Response::new(v1::CheckTopologyResponse {
            findings: report.findings.iter().map(translate::finding_out).collect(),
            peers_checked: u32::try_from(report.peers).unwrap_or(u32::MAX),
        }))
    }
}
