//! Takes in what one gateway says over one stream.

use core::time::Duration;
use std::sync::Arc;

use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{
    Change, Intake, LinkGap, Refusal, StreamKey, ToGateway, ToOwner,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, future};
use tokio_stream::wrappers::ReceiverStream;

use super::posts::{Opened, Posts};
use super::shard::ShardOwner;
use crate::channel::{FromGateway, Outlet as _};

/// How many changes are taken in before they are acknowledged together.
const ACKNOWLEDGED_TOGETHER: usize = 64;
/// How long a gateway waits for a shard that is about to be taken up.
const TAKING_UP: Duration = Duration::from_secs(1);

/// Why a stream is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkRefused {
    /// This node does not own the shard, or not yet.
    #[error("this node does not own the shard")]
    NotOwner,
    /// The gateway has opened a newer stream.
    #[error("the gateway has a newer stream")]
    Stale,
}

impl ShardOwner {
    /// Takes in a stream of a gateway; what is to be said to it comes back. The stream ends when the gateway
    /// ends it, when this node owns the shard no more, and when the gateway breaks the contract.
    ///
    /// # Errors
    /// When this node does not own the shard.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        gateway: NodeId,
        (boot, opening): (u64, u64),
        incoming: BoxStream<'static, ToOwner>,
    ) -> Result<BoxStream<'static, ToGateway>, LinkRefused> {
        let posts = tokio::time::timeout(TAKING_UP, self.taken_up())
            .await
            .map_err(|_elapsed| LinkRefused::NotOwner)?;
        let opened = posts
            .open(gateway, boot, opening)
            .ok_or(LinkRefused::Stale)?;
        let Opened { key, waiting, cut } = opened;
        let reception = Reception {
            owner: Arc::clone(self),
            posts,
            key,
        };
        tracing::debug!(shard = %self.shard(), %gateway, stream = key.stream, "a gateway's stream is open");
        let ended = cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = reception.read(incoming) => {}
            }
            // Whichever end ended it, the other is to know.
            cut.cancel();
            reception.close().await;
        });
        let outgoing = ReceiverStream::new(waiting).take_until(ended.cancelled_owned());
        Ok(outgoing.boxed())
    }
}

struct Reception {
    owner: Arc<ShardOwner>,
    posts: Arc<Posts>,
    key: StreamKey,
}

impl Reception {
    async fn read(&self, incoming: BoxStream<'static, ToOwner>) {
        let mut intake = Intake::default();
        let mut chunks = incoming.ready_chunks(ACKNOWLEDGED_TOGETHER);
        while let Some(messages) = chunks.next().await {
            for message in messages {
                if let Err(gap) = self.take(message, &mut intake).await {
                    tracing::error!(gateway = %self.key.gateway, %gap, "a gateway's stream is of no use");
                    return;
                }
            }
            if let Some(through) = intake.acknowledge() {
                self.posts
                    .send(self.key.gateway, ToGateway::Acked { through });
            }
        }
    }

    async fn take(&self, message: ToOwner, intake: &mut Intake) -> Result<(), LinkGap> {
        match message {
            // The first message was read by whoever accepted the stream.
            ToOwner::Open { .. } => {}
            ToOwner::Change {
                seq,
                channel,
                change,
            } => {
                if !intake.take(seq)? {
                    return Ok(());
                }
                let attached = attachment(&change);
                let from = FromGateway::Change(self.key, change);
                let heard = match self.owner.channel(&channel) {
                    Some(handle) => handle.hear(from).await.is_ok(),
                    None => false,
                };
                if let (false, Some((peer, attachment))) = (heard, attached) {
                    let refusal = Refusal::NoChannel;
                    let refused = ToGateway::Refused {
                        channel,
                        peer,
                        attachment,
                        refusal,
                    };
                    self.posts.send(self.key.gateway, refused);
                }
            }
            ToOwner::Synced => self.tell_all(FromGateway::Synced(self.key)).await,
            ToOwner::Reports { channel, reports } => {
                if let Some(handle) = self.owner.channel(&channel) {
                    // A channel that has ended needs no reports.
                    let _ended = handle.hear(FromGateway::Reports(self.key, reports)).await;
                }
            }
        }
        Ok(())
    }

    async fn close(&self) {
        self.posts.close(self.key);
        self.tell_all(FromGateway::Lost(self.key)).await;
    }

    async fn tell_all(&self, from: FromGateway) {
        let channels = self.owner.channels();
        let told = channels.iter().map(|handle| handle.hear(from.clone()));
        future::join_all(told).await;
    }
}

fn attachment(change: &Change) -> Option<(espalier_orchestrator_core::PeerId, u64)> {
    match change {
        Change::Attached(attached) => Some((attached.session.peer, attached.session.attachment)),
        Change::Detached { .. } | Change::Left { .. } | Change::Said { .. } => None,
    }
}
