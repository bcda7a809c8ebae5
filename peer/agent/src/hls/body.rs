//! An object's bytes on their way to the player, waiting for chunks that are not here yet.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use espalier_peer_core::Event;
use futures::Stream;
use tokio::time::timeout;

use super::{BODY_PATIENCE, Served};
use crate::store::PlayerObject;

/// Reads a range of one object.
pub(super) struct Reading {
    served: Arc<Served>,
    object: Arc<PlayerObject>,
    range: Range<u64>,
}

impl Reading {
    pub(super) fn new(served: Arc<Served>, object: Arc<PlayerObject>, range: Range<u64>) -> Self {
        Self {
            served,
            object,
            range,
        }
    }

    /// Waits for the next bytes. False: they did not come in time, or will never come.
    pub(super) async fn ready(&mut self) -> bool {
        let mut progress = self.object.progress();
        let mut asked = false;
        loop {
            // Marked as seen before the look, so that what comes in between wakes the wait below.
            let withdrawn = progress.borrow_and_update().withdrawn;
            if self.range.is_empty() || self.object.read(self.range.start).is_some() {
                return true;
            }
            if withdrawn {
                if !self.renew() {
                    return false;
                }
                progress = self.object.progress();
                asked = false;
                continue;
            }
            if let Some(descriptor) = self.object.descriptor().filter(|_| !asked) {
                self.served.engine.tell(Event::PlayerWants {
                    object: descriptor.key,
                });
                asked = true;
            }
            if !matches!(timeout(BODY_PATIENCE, progress.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// The bytes; an error cuts the response off, so that the player never takes a part for the whole.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures::stream::try_unfold(self, |mut reading| async move {
            if reading.range.is_empty() {
                return Ok(None);
            }
            if !reading.ready().await {
                return Err(io::Error::other("the object's bytes did not come"));
            }
            let bytes = reading
                .take()
                .ok_or_else(|| io::Error::other("the object is gone"))?;
            Ok(Some((bytes, reading)))
        })
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut bytes = self.object.read(self.range.start)?;
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        bytes.truncate(left);
        self.range.start += u64::try_from(bytes.len()).ok()?;
        Some(bytes)
    }

    /// Goes on with the store's new instance of the same object, unless its bytes are other ones.
    fn renew(&mut self) -> bool {
        let key = self.object.descriptor().map(|descriptor| descriptor.key);
        match key.and_then(|key| self.served.store.object(&key)) {
            Some(new) if new.is_verified() && self.object.is_verified() => {
                let same = !Arc::ptr_eq(&new, &self.object);
                self.object = new;
                same
            }
            // Nothing was sent yet: whatever the store has now is as good.
            Some(new) if self.range.start == 0 && new.length() == self.range.end => {
                self.object = new;
                true
            }
            Some(_) | None => false,
        }
    }
}
