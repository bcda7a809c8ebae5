//! A stream to the owner on another node.

use core::time::Duration;

use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{ToGateway, ToOwner};
use espalier_proto::cluster::v1 as wire;
use espalier_proto::cluster::v1::gateway_link_service_client::GatewayLinkServiceClient;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::link_wire;
use espalier_orchestrator_core::ShardId;

/// How long a node may take to accept a stream.
const ACCEPT_WITHIN: Duration = Duration::from_secs(3);
/// Largest message of an owner, bytes: an assignment with as many children as a relay may have.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Opens the stream; what the owner says comes back. Ends when the call ends, for whatever reason.
pub(super) async fn open(
    transport: Channel,
    gateway: NodeId,
    shard: ShardId,
    (boot, opening): (u64, u64),
    messages: mpsc::Receiver<ToOwner>,
) -> Result<BoxStream<'static, ToGateway>, String> {
    let open = wire::to_owner::Kind::Open(wire::LinkOpen {
        gateway: gateway.0,
        boot,
        opening,
        shard: shard.0,
    });
    let first = wire::ToOwner { kind: Some(open) };
    let rest = ReceiverStream::new(messages).map(link_wire::to_owner_out);
    let outgoing = futures::stream::iter([first]).chain(rest);
    let mut client =
        GatewayLinkServiceClient::new(transport).max_decoding_message_size(MAX_MESSAGE);
    let answer = tokio::time::timeout(ACCEPT_WITHIN, client.link(outgoing))
        .await
        .map_err(|_elapsed| format!("no answer within {ACCEPT_WITHIN:?}"))?
        .map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    let incoming = answer.into_inner().map(|message| match message {
        Ok(message) => link_wire::to_gateway_in(message)
            .inspect_err(|problem| tracing::error!(%problem, "an owner's message cannot be read")),
        Err(status) => {
            tracing::debug!(code = ?status.code(), message = status.message(), "the owner ended the stream");
            Err(link_wire::Unreadable("the stream"))
        }
    });
    // What cannot be read ends the stream: the next one begins with everything.
    let readable = incoming.take_while(|message| std::future::ready(message.is_ok()));
    Ok(readable
        .filter_map(|message| std::future::ready(message.ok()))
        .boxed())
}
