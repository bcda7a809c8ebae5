//! The gateway's way to the owner of one shard: a thin shell round a [`GatewayLink`].
//!
//! A task keeps a stream open to whichever node owns the shard and opens another when that moves or breaks;
//! sessions outlive it. What the owner says is carried out on the channels' switchboards.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{
    AttachError, GatewayCommand, GatewayLink, LinkFull, Said, ToGateway, ToOwner,
};
use espalier_orchestrator_core::{ChannelId, PeerId, PeerReport, SessionOpened};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rand::Rng as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::switchboard::Switchboard;
use crate::owner::ShardOwner;
use crate::ownership::Ownership;
use espalier_orchestrator_core::ShardId;

/// How many messages may be between this task and the stream.
const STREAM_QUEUE: usize = 256;
/// The first and the longest wait before a stream is opened again, both with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The sessions of one shard at this gateway, and the stream to its owner.
#[derive(Debug)]
pub(crate) struct Gate {
    shard: ShardId,
    this: NodeId,
    started: Instant,
    link: Mutex<GatewayLink>,
    boards: Mutex<BTreeMap<ChannelId, Weak<Switchboard>>>,
    /// Woken when the link has something to send.
    changed: Notify,
}

/// Both ends of an open stream.
struct Stream {
    to_owner: mpsc::Sender<ToOwner>,
    from_owner: BoxStream<'static, ToGateway>,
}

impl Gate {
    pub(crate) fn new(shard: ShardId, this: NodeId, boot: u64) -> Self {
        Self {
            shard,
            this,
            started: Instant::now(),
            link: Mutex::new(GatewayLink::new(this, boot)),
            boards: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn this(&self) -> NodeId {
        self.this
    }

    /// Adds a channel of the shard.
    pub(crate) fn add(&self, channel: &ChannelId, board: &Arc<Switchboard>) {
        lock(&self.boards).insert(channel.clone(), Arc::downgrade(board));
    }

    /// Forgets a channel and its sessions.
    pub(crate) fn remove(&self, channel: &ChannelId) {
        lock(&self.boards).remove(channel);
        self.link().forget(channel);
    }

    pub(super) fn attach(
        &self,
        channel: &ChannelId,
        opened: SessionOpened,
        proven: bool,
    ) -> Result<(), AttachError> {
        self.link().attach(channel, opened, proven)?;
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn detach(&self, channel: &ChannelId, peer: PeerId, attachment: u64) {
        self.link().detach(channel, peer, attachment);
        self.changed.notify_one();
    }

    pub(super) fn leave(&self, channel: &ChannelId, peer: PeerId, attachment: u64) -> bool {
        let current = self.link().leave(channel, peer, attachment);
        self.changed.notify_one();
        current
    }

    pub(super) fn say(
        &self,
        channel: &ChannelId,
        (peer, attachment): (PeerId, u64),
        said: Said,
    ) -> Result<(), LinkFull> {
        self.link().say(channel, peer, attachment, said)?;
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn report(
        &self,
        channel: &ChannelId,
        (peer, attachment): (PeerId, u64),
        report: PeerReport,
    ) {
        self.link().report(channel, peer, attachment, report);
        self.changed.notify_one();
    }

    /// Keeps a stream open to the shard's owner, for as long as the future is polled.
    pub(crate) async fn run(
        self: Arc<Self>,
        ownership: Arc<dyn Ownership>,
        local: Arc<ShardOwner>,
    ) {
        let mut owner = ownership.owner(self.shard);
        let mut wait = FIRST_WAIT;
        loop {
            let Ok(node) = owner.wait_for(Option::is_some).await.map(|node| *node) else {
                return;
            };
            let Some(node) = node else { continue };
            if let Some(stream) = self.open(node, ownership.as_ref(), &local).await {
                let served = Instant::now();
                self.serve(stream, node, &mut owner).await;
                self.link().stream_lost();
                tracing::debug!(shard = self.shard.0, owner = %node, "the stream to the owner has ended");
                if served.elapsed() > LONGEST_WAIT {
                    wait = FIRST_WAIT;
                }
            }
            let pause = wait.mul_f64(rand::rng().random_range(0.5..=1.0));
            wait = (wait * 2).min(LONGEST_WAIT);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                moved = owner.changed() => {
                    wait = FIRST_WAIT;
                    if moved.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn open(
        &self,
        node: NodeId,
        ownership: &dyn Ownership,
        local: &Arc<ShardOwner>,
    ) -> Option<Stream> {
        let (to_owner, messages) = mpsc::channel(STREAM_QUEUE);
        let first = {
            let mut link = self.link();
            link.stream_opened();
            link.poll_transmit(self.started.elapsed())
        };
        let Some(ToOwner::Open { boot, opening, .. }) = first else {
            return None;
        };
        let opened = if node == self.this {
            let incoming = ReceiverStream::new(messages).boxed();
            let accepted = local.accept(self.this, (boot, opening), incoming).await;
            accepted.map_err(|refused| refused.to_string())
        } else {
            match ownership.transport(node) {
                None => Err("it cannot be reached".to_owned()),
                Some(transport) => {
                    let opening = (boot, opening);
                    super::remote::open(transport, self.this, self.shard, opening, messages).await
                }
            }
        };
        match opened {
            Ok(from_owner) => Some(Stream {
                to_owner,
                from_owner,
            }),
            Err(problem) => {
                self.link().stream_lost();
                tracing::debug!(shard = self.shard.0, owner = %node, problem, "no stream to the owner");
                None
            }
        }
    }

    /// Carries messages until the stream ends, or the shard has another owner.
    async fn serve(
        &self,
        stream: Stream,
        node: NodeId,
        owner: &mut watch::Receiver<Option<NodeId>>,
    ) {
        let Stream {
            to_owner,
            mut from_owner,
        } = stream;
        let mut idle = false;
        loop {
            let due = if idle { self.due() } else { None };
            tokio::select! {
                permit = to_owner.reserve(), if !idle => {
                    let Ok(permit) = permit else { return };
                    match self.link().poll_transmit(self.started.elapsed()) {
                        Some(message) => permit.send(message),
                        None => idle = true,
                    }
                }
                message = from_owner.next() => {
                    let Some(message) = message else { return };
                    self.link().receive(message);
                    self.carry_out();
                    idle = false;
                }
                () = self.changed.notified(), if idle => idle = false,
                () = sleep_or_forever(due) => idle = false,
                moved = owner.changed() => {
                    if moved.is_err() || *owner.borrow() != Some(node) {
                        return;
                    }
                }
            }
        }
    }

    fn due(&self) -> Option<Duration> {
        let due = self.link().poll_timeout()?;
        Some(due.saturating_sub(self.started.elapsed()))
    }

    fn carry_out(&self) {
        loop {
            // The link is not locked while a switchboard is: those that attach take the locks the other way.
            let command = self.link().poll_command();
            let Some(command) = command else { return };
            self.execute(command);
        }
    }

    fn execute(&self, command: GatewayCommand) {
        let board = |channel: &ChannelId| lock(&self.boards).get(channel).and_then(Weak::upgrade);
        match command {
            GatewayCommand::Admit {
                channel,
                peer,
                attachment,
            } => {
                if let Some(board) = board(&channel) {
                    board.admit(peer, attachment);
                }
            }
            GatewayCommand::Refuse {
                channel,
                peer,
                attachment,
                refusal,
            } => {
                if let Some(board) = board(&channel) {
                    board.refuse(peer, attachment, refusal);
                }
            }
            GatewayCommand::Supersede {
                channel,
                peer,
                attachment,
            } => {
                if let Some(board) = board(&channel) {
                    board.supersede(peer, attachment);
                }
            }
            GatewayCommand::Assign {
                channel,
                peer,
                attachment,
                assignment,
            } => {
                if let Some(board) = board(&channel) {
                    board.assign(peer, attachment, &assignment);
                }
            }
            GatewayCommand::Locate { channel, seats } => {
                if let Some(board) = board(&channel) {
                    board.locate(&seats);
                }
            }
            GatewayCommand::End { channel } => {
                if let Some(board) = board(&channel) {
                    board.deleted();
                }
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, GatewayLink> {
        lock(&self.link)
    }
}

/// Nothing that panics is done under these locks, so a poisoned one holds whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn sleep_or_forever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
