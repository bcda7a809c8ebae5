//! Receives the messages of one data channel.
//!
//! Everything taken from the crate is passed on at once or held by exactly one waiting task. A caller
//! that does not drain its events slows the other peer, but late: the crate queues up to 512 messages
//! of a channel (32 MB of whole chunks) before it lets SCTP's window close.

use std::sync::Arc;

use ::webrtc::data_channel::{DataChannel, DataChannelEvent};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

use super::super::{
    CloseReason, EventSender, LinkId, MAX_MESSAGE_BYTES, MAX_PING_BYTES, TransportEvent,
};

/// Which of a link's two channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Ping,
}

/// A step on the way to an open link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A channel is open here.
    Opened(Kind),
    /// The other side sent something, so its channels are open too.
    Heard,
}

impl Kind {
    fn limit(self) -> usize {
        match self {
            Self::Data => MAX_MESSAGE_BYTES,
            Self::Ping => MAX_PING_BYTES,
        }
    }

    fn event(self, link: LinkId, bytes: Bytes) -> TransportEvent {
        match self {
            Self::Data => TransportEvent::Frame { link, bytes },
            Self::Ping => TransportEvent::Ping { link, bytes },
        }
    }
}

/// What a receiving task needs.
pub(super) struct Receiver {
    pub(super) link: LinkId,
    pub(super) kind: Kind,
    pub(super) channel: Arc<dyn DataChannel>,
    pub(super) events: EventSender,
    /// Told how far the link is.
    pub(super) signs: mpsc::Sender<Sign>,
    /// True once the link's `Open` was emitted: no message may come before it.
    pub(super) link_open: watch::Receiver<bool>,
    /// Told when bytes that were sent have been acknowledged.
    pub(super) acknowledged: Arc<Notify>,
}

impl Receiver {
    /// Passes messages on until the channel ends; returns why.
    pub(super) async fn run(mut self) -> CloseReason {
        let mut heard = false;
        while let Some(event) = self.channel.poll().await {
            match event {
                DataChannelEvent::OnOpen => {
                    let told = self.signs.send(Sign::Opened(self.kind)).await;
                    if told.is_err() {
                        return CloseReason::Local;
                    }
                }
                DataChannelEvent::OnMessage(message) => {
                    if !heard && self.signs.send(Sign::Heard).await.is_err() {
                        return CloseReason::Local;
                    }
                    heard = true;
                    if let Err(reason) = self.pass_on(message.data.freeze()).await {
                        return reason;
                    }
                }
                DataChannelEvent::OnBufferedAmountLow => self.acknowledged.notify_one(),
                DataChannelEvent::OnClosing | DataChannelEvent::OnClose => break,
                DataChannelEvent::OnError | DataChannelEvent::OnBufferedAmountHigh | _ => {}
            }
        }
        CloseReason::Remote
    }

    async fn pass_on(&mut self, message: Bytes) -> Result<(), CloseReason> {
        if message.is_empty() {
            return Ok(());
        }
        if message.len() > self.kind.limit() {
            return Err(CloseReason::Violation(format!(
                "a message of {} bytes",
                message.len()
            )));
        }
        self.link_open
            .wait_for(|open| *open)
            .await
            .map_err(|_| CloseReason::Local)?;
        let event = self.kind.event(self.link, message);
        self.events
            .send(event)
            .await
            .map_err(|_| CloseReason::Local)
    }
}
