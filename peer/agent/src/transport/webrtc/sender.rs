//! Hands queued messages to SCTP and watches what the other side acknowledges.
//!
//! What is outstanding is asked for before every message (after it, the question would wait for the
//! crate's driver, which is busy sending), and at an interval while there is any. That suffices as
//! long as a message is acknowledged before the next one is sent. When more than [`BUSY`] is
//! outstanding, the crate is also asked to say when it falls below [`LOW`]; asking for that with every
//! message would wake three tasks each time for nothing.

use std::sync::Arc;
use std::time::Duration;

use ::webrtc::data_channel::DataChannel;
use ::webrtc::error::Result;
use bytes::BytesMut;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::super::{CloseReason, EventSender, LinkId, TransportEvent};
use super::link::LinkState;

/// A little more than a chunk: the other side is behind.
const BUSY: usize = 64 * 1024;

/// A little less than a chunk: there is room for the next.
const LOW: u32 = 48 * 1024;

/// A threshold that is never crossed.
const OFF: u32 = u32::MAX;

/// How often to ask while the other side is behind, should the crate's word have been missed: the
/// threshold may be set a moment after it was crossed.
const BUSY_REFRESH: Duration = Duration::from_millis(20);

/// How often to ask otherwise. The other side delays its last acknowledgement by up to 200 ms, so
/// asking more often finds nothing new.
const IDLE_REFRESH: Duration = Duration::from_millis(200);

/// What the sending task needs.
pub(super) struct Sender {
    pub(super) link: LinkId,
    pub(super) channel: Arc<dyn DataChannel>,
    pub(super) state: Arc<LinkState>,
    pub(super) frames: mpsc::Receiver<BytesMut>,
    pub(super) events: EventSender,
    /// Tells to ask now.
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
        self.channel.set_buffered_amount_low_threshold(OFF).await?;
        let mut armed = false;
        // Whether a `Writable` is owed. Waiting for room in the event channel must not stop the
        // sending, and several acknowledgements may share one event.
        let mut owed = false;
        loop {
            let waits = self.state.outstanding() > 0;
            let refresh = if armed { BUSY_REFRESH } else { IDLE_REFRESH };
            tokio::select! {
                message = self.frames.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    let bytes = message.len();
                    owed |= self.refresh().await?;
                    self.channel.send(message).await?;
                    self.state.taken(bytes);
                }
                permit = self.events.reserve(), if owed => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let buffered = self.state.buffered();
                    permit.send(TransportEvent::Writable { link: self.link, buffered });
                    owed = false;
                }
                () = self.acknowledged.notified() => owed |= self.refresh().await?,
                () = sleep(refresh), if waits => owed |= self.refresh().await?,
            }
            if armed != (self.state.outstanding() > BUSY) {
                armed = !armed;
                let threshold = if armed { LOW } else { OFF };
                self.channel
                    .set_buffered_amount_low_threshold(threshold)
                    .await?;
            }
            if self.state.buffered() == 0 {
                self.drained.notify_waiters();
            }
        }
    }

    /// Asks how much is outstanding; returns whether any was acknowledged since the last time.
    async fn refresh(&self) -> Result<bool> {
        let now = self.channel.outstanding_bytes().await?;
        Ok(self.state.set_outstanding(now) > now)
    }
}
