//! `espalier.cluster.v1.GatewayLinkService`: what this node's owners and switchboards hear from other nodes.

use core::pin::Pin;
use std::sync::Arc;

use espalier_orchestrator_core::NodeId;
use espalier_proto::cluster::v1 as wire;
use espalier_proto::cluster::v1::gateway_link_service_server::GatewayLinkService;
use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::channel::HandleError;
use crate::directory::Directory;
use crate::link_wire;
use espalier_orchestrator_core::ShardId;

/// The service.
pub(crate) struct LinkService {
    directory: Arc<Directory>,
}

impl LinkService {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }
}

#[tonic::async_trait]
impl GatewayLinkService for LinkService {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<wire::ToGateway, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<wire::ToOwner>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.kind);
        let Some(wire::to_owner::Kind::Open(open)) = first else {
            return Err(Status::invalid_argument(
                "the first message must be LinkOpen",
            ));
        };
        let part = self.directory.part(ShardId(open.shard));
        let part = part.ok_or_else(|| Status::not_found("there is no such shard"))?;
        // What cannot be read ends the stream: the gateway's next one begins with everything.
        let messages = incoming
            .map(|message| match message {
                Ok(message) => link_wire::to_owner_in(message)
                    .inspect_err(|problem| tracing::error!(%problem, "a gateway is not understood"))
                    .ok(),
                Err(_ended) => None,
            })
            .take_while(|message| std::future::ready(message.is_some()))
            .filter_map(std::future::ready);
        let opening = (open.boot, open.opening);
        let outgoing = part
            .owner
            .accept(NodeId(open.gateway), opening, messages.boxed())
            .await
            .map_err(|refused| {
                tracing::debug!(%refused, gateway = open.gateway, "a gateway's stream is refused");
                Status::from(HandleError::NoOwner)
            })?;
        let outgoing = outgoing.map(|message| Ok(link_wire::to_gateway_out(message)));
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn signals(
        &self,
        request: Request<Streaming<wire::PassedSignal>>,
    ) -> Result<Response<()>, Status> {
        let mut incoming = request.into_inner();
        while let Some(passed) = incoming.message().await? {
            // A channel that is not here has no peers here; the sender's patience ends the attempt.
            if let Ok(channel) = self.directory.find(&passed.channel) {
                channel.board.signal_passed(passed);
            }
        }
        Ok(Response::new(()))
    }
}
