//! Hands queued messages to SCTP and watches what the other side acknowledges.
//!
//! The crate says when its buffer falls below a threshold, not how far it has fallen at any moment,
//! so what is outstanding is asked for after every message, at that threshold, and at an interval
//! while anything is outstanding.

use std::sync::Arc;
use std::time::Duration;

use ::webrtc::data_channel::DataChannel;
use ::webrtc::error::Result;
use bytes::BytesMut;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::super::{CloseReason, EventSender, LinkId, TransportEvent};
use super::link::LinkState;

/// A little less than a chunk, so that every chunk sent crosses it on its way out.
const LOW_THRESHOLD: u32 = 48 * 1024;

/// How often to ask while nothing is sent and the threshold says nothing.
const REFRESH: Duration = Duration::from_millis(20);

/// What the sending task needs.
pub(super) struct Sender {
    pub(super) link: LinkId,
    pub(super) channel: Arc<dyn DataChannel>,
    pub(super) state: Arc<LinkState>,
    pub(super) frames: mpsc::Receiver<BytesMut>,
    pub(super) events: EventSender,
    pub(super) acknowledged: Arc<Notify>,
    /// Told when nothing is buffered any more.
    pub(super) drained: Arc<Notify>,
}

impl Sender {
    /// Sends until the channel or the handle is gone; returns why.
    pub(super) async fn run(mut self) -> CloseReason {
        match self.send_all().await {
            Ok(()) => CloseReason::Local,
            Err(error) => {
                tracing::debug!(link = %self.link, %error, "sending ends");
                CloseReason::Remote
            }
        }
    }

    async fn send_all(&mut self) -> Result<()> {
        self.channel
            .set_buffered_amount_low_threshold(LOW_THRESHOLD)
            .await?;
        // Whether a `Writable` is owed. Waiting for room in the event channel must not stop the
        // sending, and several acknowledgements may share one event.
        let mut owed = false;
        loop {
            let waits = self.state.outstanding() > 0;
            tokio::select! {
                message = self.frames.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    let bytes = message.len();
                    self.channel.send(message).await?;
                    owed |= self.refresh(bytes).await?;
                }
                permit = self.events.reserve(), if owed => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let buffered = self.state.buffered();
                    permit.send(TransportEvent::Writable { link: self.link, buffered });
                    owed = false;
                }
                () = self.acknowledged.notified() => owed |= self.refresh(0).await?,
                () = sleep(REFRESH), if waits => owed |= self.refresh(0).await?,
            }
            if self.state.buffered() == 0 {
                self.drained.notify_waiters();
            }
        }
    }

    /// Asks how much is outstanding after `sent` more bytes were handed over; returns whether any
    /// was acknowledged since the last time.
    async fn refresh(&self, sent: usize) -> Result<bool> {
        let before = self.state.outstanding() + sent;
        let now = self.channel.outstanding_bytes().await?;
        self.state.moved(sent, now);
        Ok(now < before)
    }
}
