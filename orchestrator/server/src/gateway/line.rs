//! What waits to be sent to one peer: a small bounded queue, and how it ends.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::{Arc, OnceLock};

use espalier_proto::v1;
use futures::{FutureExt as _, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::metrics;
use crate::status::SessionError;

/// How a session ends.
#[derive(Debug)]
pub(crate) enum Closing {
    /// What waits is still sent; then the stream ends in order.
    AfterQueue,
    /// What waits is dropped, and the stream ends with a status.
    Now(Box<Status>),
}

/// The writing end. Cheap to clone; every clone is the same session.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    // Boxed, because the queue has room for many from the start and mostly holds none.
    queue: mpsc::Sender<Box<v1::NodeMessage>>,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    how: OnceLock<Closing>,
    reached: CancellationToken,
}

impl Line {
    /// Makes both ends of a queue for that many messages.
    pub(crate) fn new(capacity: usize) -> (Self, Outgoing) {
        let (sender, queue) = mpsc::channel(capacity);
        let end = Arc::new(End::default());
        let reached = Box::pin(end.reached.clone().cancelled_owned());
        let line = Self {
            queue: sender,
            end: Arc::clone(&end),
        };
        (
            line,
            Outgoing {
                queue,
                end,
                reached,
                state: State::Open,
            },
        )
    }

    /// Queues a message. A peer whose queue is full is dropped: it attaches again and gets the whole state,
    /// which is less than catching up.
    pub(crate) fn send(&self, kind: v1::node_message::Kind) {
        let message = Box::new(v1::NodeMessage { kind: Some(kind) });
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            metrics::laggard_dropped();
            self.close(Closing::Now(Box::new(SessionError::Laggard.into())));
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_closed() && self.queue.capacity() < self.queue.max_capacity()
    }

    /// Ends the session; the first call decides how.
    pub(crate) fn close(&self, how: Closing) {
        // A later wish to end it another way changes nothing.
        drop(self.end.how.set(how));
        self.end.reached.cancel();
    }

    /// Waits until somebody closed the session.
    pub(crate) async fn closed(&self) {
        self.end.reached.cancelled().await;
    }
}

/// The reading end: the stream that tonic sends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::Receiver<Box<v1::NodeMessage>>,
    end: Arc<End>,
    reached: Pin<Box<WaitForCancellationFutureOwned>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Messages are sent as they come.
    Open,
    /// What is queued is sent, nothing is added.
    Draining,
    /// The end was sent.
    Ended,
}

impl Stream for Outgoing {
    type Item = Result<v1::NodeMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.state == State::Open && self.reached.poll_unpin(context).is_ready() {
            self.queue.close();
            self.state = State::Draining;
            if let Some(Closing::Now(status)) = self.end.how.get() {
                let status = status.as_ref().clone();
                self.state = State::Ended;
                return Poll::Ready(Some(Err(status)));
            }
        }
        if self.state == State::Ended {
            return Poll::Ready(None);
        }
        self.queue
            .poll_recv(context)
            .map(|message| message.map(|message| Ok(*message)))
    }
}

impl Drop for Outgoing {
    /// The peer, or its connection, is gone: the session's task has nothing more to do.
    fn drop(&mut self) {
        self.end.reached.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tonic::Code;

    fn notice() -> v1::node_message::Kind {
        v1::node_message::Kind::Notice(v1::Notice { kind: None })
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_peer_with_a_reason() {
        let (line, mut outgoing) = Line::new(2);
        for _ in 0..3 {
            line.send(notice());
        }
        let status = outgoing.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(outgoing.next().await.is_none());
        line.closed().await;
    }

    #[tokio::test]
    async fn an_orderly_end_sends_what_waits() {
        let (line, mut outgoing) = Line::new(4);
        line.send(notice());
        line.send(notice());
        line.close(Closing::AfterQueue);
        line.close(Closing::Now(Box::new(Status::aborted(
            "too late to say this",
        ))));
        line.send(notice());
        assert!(outgoing.next().await.unwrap().is_ok());
        assert!(outgoing.next().await.unwrap().is_ok());
        assert!(outgoing.next().await.is_none_or(|message| message.is_ok()));
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_the_session() {
        let (line, outgoing) = Line::new(1);
        drop(outgoing);
        line.closed().await;
    }
}
