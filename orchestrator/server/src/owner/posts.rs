//! The writing ends of the gateways' streams.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{StreamKey, ToGateway};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::channel::Outlet;

/// How many messages may wait for one gateway. One that falls further behind is cut off: it opens another
/// stream and gets what it lacks, which is less than catching up.
const MOST_WAITING: usize = 32_768;

/// The open streams of one shard, by gateway.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    inner: Mutex<Inner>,
    failed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    streams: u64,
    posts: BTreeMap<NodeId, Post>,
}

#[derive(Debug)]
struct Post {
    stream: u64,
    /// The gateway's process, and which of its streams this is.
    opening: (u64, u64),
    queue: mpsc::Sender<ToGateway>,
    cut: CancellationToken,
}

/// One gateway's stream, as its reader holds it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) key: StreamKey,
    pub(super) waiting: mpsc::Receiver<ToGateway>,
    /// Cancelled when the stream is to end.
    pub(super) cut: CancellationToken,
}

impl Posts {
    /// Opens a stream; an older one of the same gateway is cut. `None`: this one is the older.
    pub(super) fn open(&self, gateway: NodeId, boot: u64, opening: u64) -> Option<Opened> {
        let mut inner = self.lock();
        let known = inner.posts.get(&gateway);
        if known.is_some_and(|post| post.opening.0 == boot && post.opening.1 >= opening) {
            return None;
        }
        inner.streams += 1;
        let stream = inner.streams;
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let cut = CancellationToken::new();
        let post = Post {
            stream,
            opening: (boot, opening),
            queue,
            cut: cut.clone(),
        };
        if let Some(old) = inner.posts.insert(gateway, post) {
            old.cut.cancel();
        }
        let key = StreamKey { gateway, stream };
        Some(Opened { key, waiting, cut })
    }

    /// Forgets a stream that has ended.
    pub(super) fn close(&self, key: StreamKey) {
        let mut inner = self.lock();
        let known = inner.posts.get(&key.gateway);
        if known.is_some_and(|post| post.stream == key.stream) {
            inner.posts.remove(&key.gateway);
        }
    }

    /// Ends every stream.
    pub(super) fn cut_all(&self) {
        for post in std::mem::take(&mut self.lock().posts).into_values() {
            post.cut.cancel();
        }
    }

    /// Waits until an actor says that the shard has to be taken up anew.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet for Posts {
    fn send(&self, gateway: NodeId, message: ToGateway) {
        let inner = self.lock();
        let Some(post) = inner.posts.get(&gateway) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = post.queue.try_send(message) {
            tracing::warn!(%gateway, "a gateway reads too slowly: its stream is cut");
            post.cut.cancel();
        }
    }

    fn failed(&self) {
        self.failed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: NodeId = NodeId(1);

    fn acked() -> ToGateway {
        ToGateway::Acked { through: 1 }
    }

    #[test]
    fn the_newest_stream_of_a_gateway_is_the_one() {
        let posts = Posts::default();
        let mut first = posts.open(GATEWAY, 7, 2).unwrap();
        assert!(posts.open(GATEWAY, 7, 1).is_none(), "it was opened before");
        let mut second = posts.open(GATEWAY, 7, 3).unwrap();
        assert!(first.cut.is_cancelled() && first.key < second.key);
        posts.close(first.key);
        posts.send(GATEWAY, acked());
        assert_eq!(second.waiting.try_recv(), Ok(acked()));
        assert!(first.waiting.try_recv().is_err());
        let other_process = posts.open(GATEWAY, 8, 1).unwrap();
        assert!(second.cut.is_cancelled());
        posts.cut_all();
        assert!(other_process.cut.is_cancelled());
        posts.send(GATEWAY, acked());
    }

    #[test]
    fn a_gateway_that_does_not_read_is_cut_off() {
        let posts = Posts::default();
        let stream = posts.open(GATEWAY, 1, 1).unwrap();
        for _ in 0..MOST_WAITING {
            posts.send(GATEWAY, acked());
        }
        assert!(!stream.cut.is_cancelled());
        posts.send(GATEWAY, acked());
        assert!(stream.cut.is_cancelled());
    }
}
