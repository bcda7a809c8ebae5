//! Takes in what one gateway says over one stream.

use core::time::Duration;
use std::sync::Arc;

use espalier_orchestrator_core::link::{
    Change, Intake, LinkGap, Refusal, StreamKey, ToGateway, ToOwner,
};
use espalier_orchestrator_core::{ChannelId, NodeId, PeerId};
use futures::stream::BoxStream;
use futures::{StreamExt as _, future};
use tokio_stream::wrappers::ReceiverStream;

use super::posts::{Opened, Posts};
use super::shard::ShardOwner;
use crate::channel::{FromGateway, Outlet as _};

/// How many messages are taken in, and acknowledged, together.
const TAKEN_TOGETHER: usize = 256;
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
        let mut chunks = incoming.ready_chunks(TAKEN_TOGETHER);
        while let Some(messages) = chunks.next().await {
            let taken = self.take(messages, &mut intake).await;
            if let Some(through) = intake.acknowledge() {
                self.send(ToGateway::Acked { through });
            }
            if let Err(gap) = taken {
                tracing::error!(gateway = %self.key.gateway, %gap, "a gateway's stream is of no use");
                return;
            }
        }
    }

    /// Gives each channel at once what is said about it in a row.
    async fn take(&self, messages: Vec<ToOwner>, intake: &mut Intake) -> Result<(), LinkGap> {
        let mut batch = Batch::default();
        for message in messages {
            match message {
                // The first message was read by whoever accepted the stream.
                ToOwner::Open { .. } => {}
                ToOwner::Change {
                    seq,
                    channel,
                    change,
                } => {
                    match intake.take(seq) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(gap) => {
                            self.hand_on(batch).await;
                            return Err(gap);
                        }
                    }
                    if batch.channel.as_ref() != Some(&channel) {
                        self.hand_on(std::mem::take(&mut batch)).await;
                        batch.channel = Some(channel);
                    }
                    batch.attached.extend(attachment(&change));
                    batch.said.push(FromGateway::Change(self.key, change));
                }
                ToOwner::Synced => {
                    self.hand_on(std::mem::take(&mut batch)).await;
                    self.tell_all(FromGateway::Synced(self.key)).await;
                }
                ToOwner::Reports { channel, reports } => {
                    self.hand_on(std::mem::take(&mut batch)).await;
                    batch.channel = Some(channel);
                    batch.said.push(FromGateway::Reports(self.key, reports));
                }
            }
        }
        self.hand_on(batch).await;
        Ok(())
    }

    async fn hand_on(&self, batch: Batch) {
        let Some(channel) = batch.channel else { return };
        let heard = match self.owner.channel(&channel) {
            Some(actor) => actor.hear(batch.said).await.is_ok(),
            None => false,
        };
        if heard {
            return;
        }
        for (peer, attachment) in batch.attached {
            self.send(ToGateway::Refused {
                channel: channel.clone(),
                peer,
                attachment,
                refusal: Refusal::NoChannel,
            });
        }
    }

    fn send(&self, message: ToGateway) {
        self.posts.send(self.key.gateway, message);
    }

    async fn close(&self) {
        self.posts.close(self.key);
        self.tell_all(FromGateway::Lost(self.key)).await;
    }

    async fn tell_all(&self, from: FromGateway) {
        let channels = self.owner.channels();
        let told = channels.iter().map(|actor| actor.hear(vec![from.clone()]));
        future::join_all(told).await;
    }
}

/// What was said about one channel in a row.
#[derive(Default)]
struct Batch {
    channel: Option<ChannelId>,
    said: Vec<FromGateway>,
    /// The sessions among it, which are refused if nobody takes it in.
    attached: Vec<(PeerId, u64)>,
}

fn attachment(change: &Change) -> Option<(PeerId, u64)> {
    match change {
        Change::Attached(attached) => Some((attached.session.peer, attached.session.attachment)),
        Change::Detached { .. } | Change::Left { .. } | Change::Said { .. } => None,
    }
}
