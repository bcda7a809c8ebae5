//! What waits for the writer: a lane for each group, bounded together.
//!
//! Invariants: a group's operations are taken in the order in which they came, votes too. A vote does not
//! overtake its own group's appends: openraft counts everything before a flushed vote as flushed, so an
//! append would be acknowledged that is not on the disk. But the lane that holds a vote is taken before all
//! other lanes. Entering never waits for the disk, only for room in the queue when that is full.
//!
//! Committed indices don't wake the writer: a group's newest goes along with the next batch.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::error::StoreError;
use crate::key::GroupId;
use crate::ledger::Op;

/// Called when an operation is on the disk, or will never be.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// An operation and who waits for it.
pub(crate) struct Queued {
    pub(crate) op: Op,
    pub(crate) bytes: usize,
    pub(crate) done: Option<Done>,
}

/// Bounds of the queue and of what is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Entering waits while this many bytes wait for the disk.
    pub waiting_bytes: usize,
    /// A batch takes no further operation once it has this many bytes.
    pub batch_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            waiting_bytes: 64 << 20,
            batch_bytes: 2 << 20,
        }
    }
}

#[derive(Default)]
struct Lane {
    epoch: u64,
    ops: VecDeque<Queued>,
    votes: usize,
    committed: Option<Vec<u8>>,
}

#[derive(Default)]
struct Inner {
    lanes: BTreeMap<GroupId, Lane>,
    /// The lane that is taken first next time.
    turn: GroupId,
    ops: usize,
    bytes: usize,
    ended: Option<StoreError>,
    writer: Option<Waker>,
    entering: Vec<Waker>,
}

/// See the module.
pub(crate) struct Queue {
    limits: QueueLimits,
    inner: Mutex<Inner>,
}

/// What the writer takes at once: operations, whole lanes in order, and for which groups.
pub(crate) type Taken = Vec<(GroupId, Queued)>;

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            inner: Mutex::new(Inner::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a group's lane anew; handles with an older epoch are refused from now on.
    pub(crate) fn open_lane(&self, group: GroupId) -> u64 {
        let mut inner = self.lock();
        let lane = inner.lanes.entry(group).or_default();
        lane.epoch += 1;
        lane.epoch
    }

    /// Waits for room. Several that wait may go on at once, so the bound holds up to one operation of each.
    pub(crate) async fn room(&self) -> Result<(), StoreError> {
        poll_fn(|context| {
            let mut inner = self.lock();
            if let Some(error) = &inner.ended {
                return Poll::Ready(Err(error.clone()));
            }
            if inner.bytes < self.limits.waiting_bytes {
                return Poll::Ready(Ok(()));
            }
            inner.entering.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Puts an operation at the end of its lane.
    pub(crate) fn enter(
        &self,
        group: GroupId,
        epoch: u64,
        op: Op,
        done: Option<Done>,
    ) -> Result<(), StoreError> {
        let bytes = op.bytes();
        let mut inner = self.lock();
        let inner_ref = &mut *inner;
        if let Some(error) = &inner_ref.ended {
            return Err(error.clone());
        }
        let lane = inner_ref.lanes.entry(group).or_default();
        if lane.epoch != epoch {
            return Err(StoreError::Superseded(group));
        }
        lane.votes += usize::from(matches!(op, Op::Vote(_)));
        lane.ops.push_back(Queued { op, bytes, done });
        inner_ref.ops += 1;
        inner_ref.bytes += bytes;
        let waker = inner.writer.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Sets a group's committed log id, in place of one that waits.
    pub(crate) fn set_committed(
        &self,
        group: GroupId,
        epoch: u64,
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.ended {
            return Err(error.clone());
        }
        let lane = inner.lanes.entry(group).or_default();
        if lane.epoch != epoch {
            return Err(StoreError::Superseded(group));
        }
        lane.committed = Some(body);
        Ok(())
    }

    /// Waits for operations and takes them, up to a batch's bytes. With `idle` it returns nothing instead of
    /// waiting. None means closed and all taken.
    pub(crate) async fn take(&self, idle: bool) -> Option<Taken> {
        poll_fn(|context| {
            let mut inner = self.lock();
            if inner.ops > 0 {
                return Poll::Ready(Some(inner.take(self.limits.batch_bytes)));
            }
            if inner.ended.is_some() {
                let rest = inner.take_committed();
                return Poll::Ready((!rest.is_empty()).then_some(rest));
            }
            if idle {
                return Poll::Ready(Some(Vec::new()));
            }
            inner.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Puts an operation that was done in part back to the front of its lane.
    pub(crate) fn put_back(&self, group: GroupId, rest: Vec<Queued>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let lane = inner.lanes.entry(group).or_default();
        for queued in rest.into_iter().rev() {
            lane.votes += usize::from(matches!(queued.op, Op::Vote(_)));
            inner.ops += 1;
            lane.ops.push_front(queued);
        }
    }

    /// Says that so many bytes wait no longer.
    pub(crate) fn release(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        if inner.bytes < self.limits.waiting_bytes {
            let wakers = std::mem::take(&mut inner.entering);
            drop(inner);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Lets nothing more in. What has entered is still taken.
    pub(crate) fn end(&self, why: StoreError) {
        let mut inner = self.lock();
        inner.ended.get_or_insert(why);
        let mut wakers = std::mem::take(&mut inner.entering);
        wakers.extend(inner.writer.take());
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it was ended.
    pub(crate) fn ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Takes everything, for telling those who wait that it will not be done.
    pub(crate) fn drain(&self) -> Vec<Queued> {
        let mut inner = self.lock();
        inner.ops = 0;
        inner.bytes = 0;
        inner
            .lanes
            .values_mut()
            .flat_map(|lane| lane.ops.drain(..).collect::<Vec<_>>())
            .collect()
    }

    /// Operations and bytes that wait.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.ops, inner.bytes)
    }
}

impl Inner {
    fn take(&mut self, batch_bytes: usize) -> Taken {
        let turn = self.turn;
        let mut order: Vec<GroupId> = self.lanes.keys().copied().collect();
        // Lanes with a vote first, then from the one whose turn it is.
        order.sort_by_key(|id| (self.lanes[id].votes == 0, *id < turn, *id));
        let mut taken = Taken::new();
        let mut bytes = 0;
        for id in order {
            let full = bytes >= batch_bytes;
            let Some(lane) = self
                .lanes
                .get_mut(&id)
                .filter(|lane| lane.votes > 0 || !full)
            else {
                continue;
            };
            // A vote is never left behind for the bound's sake.
            while lane.votes > 0 || bytes < batch_bytes {
                let Some(queued) = lane.ops.pop_front() else {
                    break;
                };
                bytes += queued.bytes;
                self.ops -= 1;
                lane.votes -= usize::from(matches!(queued.op, Op::Vote(_)));
                taken.push((id, queued));
            }
            if lane.ops.is_empty() {
                taken.extend(lane.take_committed().map(|queued| (id, queued)));
            }
            if !full && bytes >= batch_bytes {
                self.turn = id.wrapping_add(1);
            }
        }
        taken
    }

    fn take_committed(&mut self) -> Taken {
        let lanes = self.lanes.iter_mut();
        lanes
            .filter_map(|(id, lane)| Some((*id, lane.take_committed()?)))
            .collect()
    }
}

impl Lane {
    fn take_committed(&mut self) -> Option<Queued> {
        let op = Op::Committed(self.committed.take()?);
        Some(Queued {
            op,
            bytes: 0,
            done: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn queue() -> Queue {
        Queue::new(QueueLimits {
            waiting_bytes: 10_000,
            batch_bytes: 500,
        })
    }

    fn append(first: u64) -> Op {
        Op::Append {
            first,
            bodies: vec![vec![0; 200]],
        }
    }

    fn take(queue: &Queue) -> Vec<(GroupId, Op)> {
        let taken = queue
            .take(true)
            .now_or_never()
            .expect("ready")
            .expect("open");
        taken
            .into_iter()
            .map(|(group, queued)| (group, queued.op))
            .collect()
    }

    #[test]
    fn a_vote_comes_first_but_after_its_own_groups_appends() {
        let queue = queue();
        let epochs: Vec<u64> = (0..4).map(|group| queue.open_lane(group)).collect();
        for first in 0..4 {
            for group in [0, 1, 3] {
                queue
                    .enter(
                        group,
                        epochs[usize::try_from(group).expect("small")],
                        append(first),
                        None,
                    )
                    .expect("entered");
            }
        }
        queue
            .enter(3, epochs[3], Op::Vote(vec![1]), None)
            .expect("entered");
        queue.enter(3, epochs[3], append(4), None).expect("entered");
        let first = take(&queue);
        // All of group 3 up to its vote, though that is more than a batch's bytes; then nothing else fits.
        let appends = (0..4).map(|first| (3, append(first)));
        assert_eq!(
            first,
            appends.chain([(3, Op::Vote(vec![1]))]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_group_gets_its_turn() {
        let queue = queue();
        let epochs: Vec<u64> = (0..3).map(|group| queue.open_lane(group)).collect();
        for first in 0..8 {
            for group in 0..3 {
                queue
                    .enter(
                        group,
                        epochs[usize::try_from(group).expect("small")],
                        append(first),
                        None,
                    )
                    .expect("entered");
            }
        }
        let turns: Vec<GroupId> = (0..3).map(|_| take(&queue)[0].0).collect();
        assert_eq!(turns, [0, 1, 2]);
    }

    #[test]
    fn a_committed_index_wakes_nobody_and_goes_with_the_next_batch() {
        let queue = queue();
        let epoch = queue.open_lane(1);
        for index in [1, 2, 3] {
            queue.set_committed(1, epoch, vec![index]).expect("set");
        }
        assert!(take(&queue).is_empty());
        queue.enter(1, epoch, append(0), None).expect("entered");
        assert_eq!(take(&queue), [(1, append(0)), (1, Op::Committed(vec![3]))]);
    }

    #[test]
    fn the_end_lets_out_what_was_in_and_nothing_more_in() {
        let queue = queue();
        let epoch = queue.open_lane(1);
        queue.enter(1, epoch, append(0), None).expect("entered");
        queue.set_committed(1, epoch, vec![1]).expect("set");
        queue.end(StoreError::Closed);
        assert!(matches!(
            queue.enter(1, epoch, append(1), None),
            Err(StoreError::Closed)
        ));
        assert_eq!(take(&queue), [(1, append(0)), (1, Op::Committed(vec![1]))]);
        assert!(queue.take(false).now_or_never().expect("ready").is_none());
    }

    #[test]
    fn a_lane_opened_anew_refuses_the_old_handle() {
        let queue = queue();
        let old = queue.open_lane(1);
        let new = queue.open_lane(1);
        assert!(matches!(
            queue.enter(1, old, append(0), None),
            Err(StoreError::Superseded(1))
        ));
        queue.enter(1, new, append(0), None).expect("entered");
    }
}
