//! Streams of states: the latest wins, and none comes sooner than 250 ms after the one before.

use core::time::Duration;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::channel::{ChannelHandle, ChannelView, HandleError};
use crate::directory::Channel;
use crate::registry::ChannelRecord;
use crate::status::ChannelError;
use espalier_signer::SignerStatus;

/// How long the end of a channel may take after its actor's.
const ENDING: Duration = Duration::from_millis(500);
/// How far apart two states are at the least.
const INTERVAL: Duration = Duration::from_millis(250);

/// Everything about a channel that can change.
pub(super) struct Changes {
    channel: Arc<Channel>,
    actor: ChannelHandle,
    view: watch::Receiver<ChannelView>,
    signer: watch::Receiver<SignerStatus>,
    record: watch::Receiver<ChannelRecord>,
}

impl Changes {
    fn of(channel: Arc<Channel>) -> Result<Self, HandleError> {
        let actor = channel.actor()?;
        Ok(Self {
            view: actor.watch(),
            actor,
            signer: channel.signer.watch_status(),
            record: channel.record.subscribe(),
            channel,
        })
    }

    /// Waits for a change; `Err` when the channel has ended.
    async fn next(&mut self) -> Result<(), Status> {
        let ended = self.channel.ended.clone();
        let gone = || Status::from(ChannelError::NotFound(self.channel.id.to_string()));
        let changed = tokio::select! {
            () = ended.cancelled() => return Err(gone()),
            changed = self.view.changed() => changed,
            changed = self.signer.changed() => changed,
            changed = self.record.changed() => changed,
        };
        if changed.is_err() {
            // The actor or the signer ended: the channel is about to, or another node owns it.
            let moved = tokio::time::timeout(ENDING, ended.cancelled()).await;
            return Err(match moved {
                Ok(()) => gone(),
                Err(_elapsed) => HandleError::NoOwner.into(),
            });
        }
        Ok(())
    }
}

/// The channel's state now, and again whenever `render` gives something else.
///
/// # Errors
/// When this node does not own the channel.
pub(super) fn states<T, F>(
    channel: Arc<Channel>,
    render: F,
) -> Result<impl Stream<Item = Result<T, Status>>, HandleError>
where
    T: Clone + PartialEq + Send,
    F: Fn(&Channel, &ChannelView) -> T + Send,
{
    let start = Watching {
        changes: Changes::of(channel)?,
        last: None,
        render,
        over: false,
    };
    Ok(futures::stream::unfold(start, |mut watching| async move {
        let item = watching.next().await?;
        Some((item, watching))
    }))
}

struct Watching<T, F> {
    changes: Changes,
    last: Option<(Instant, T)>,
    render: F,
    over: bool,
}

impl<T, F> Watching<T, F>
where
    T: Clone + PartialEq + Send,
    F: Fn(&Channel, &ChannelView) -> T + Send,
{
    async fn next(&mut self) -> Option<Result<T, Status>> {
        while !self.over {
            let view = match self.next_view().await {
                Ok(view) => view,
                Err(ended) => {
                    self.over = true;
                    return Some(Err(ended));
                }
            };
            let state = (self.render)(&self.changes.channel, &view);
            if self.last.as_ref().is_none_or(|(_, last)| *last != state) {
                self.last = Some((Instant::now(), state.clone()));
                return Some(Ok(state));
            }
        }
        None
    }

    /// The first view is the present one, which may be newer than the last published.
    async fn next_view(&mut self) -> Result<ChannelView, Status> {
        let Some((at, _)) = self.last else {
            return Ok(self.changes.actor.look().await?);
        };
        self.changes.next().await?;
        tokio::time::sleep_until(at + INTERVAL).await;
        Ok(self.changes.view.borrow_and_update().clone())
    }
}
