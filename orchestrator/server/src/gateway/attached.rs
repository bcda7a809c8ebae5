//! What attached peers say: the queues between their calls and their sessions.
//!
//! A peer that cannot stream upwards says what it has to say in calls of their own, to whichever node they reach; the
//! node that holds its stream queues the messages here, and the session's task reads them as it reads a stream's.
//! Invariants: each message is queued once, in order; nothing here waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use espalier_orchestrator_core::NodeId;
use espalier_proto::v1;
use tokio::sync::mpsc;

use crate::secret::random;
use crate::status::{SessionError, Violation};

/// How many messages of one session may wait to be read.
const MOST_WAITING: usize = 128;
/// How many messages one call may bring.
const MOST_IN_A_CALL: usize = 64;
/// A session's name: its node (8, big-endian), then random bytes that nobody guesses.
const NAME: usize = 8 + 16;

type Name = [u8; NAME];

/// The attached sessions of this node.
#[derive(Debug)]
pub(crate) struct Attached {
    this: NodeId,
    inner: Mutex<HashMap<Name, Speaker>>,
}

#[derive(Debug)]
struct Speaker {
    /// The number of the message that comes next.
    next: u64,
    queue: mpsc::Sender<v1::PeerMessage>,
}

/// Where a call's messages go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// They have been taken in up to this number, exclusively.
    Here(u64),
    /// To the node that holds the session's stream.
    There(NodeId),
}

/// Ends the session's queue when it goes.
#[derive(Debug)]
pub(crate) struct SpokenGuard {
    attached: Arc<Attached>,
    name: Name,
}

impl Attached {
    pub(crate) fn new(this: NodeId) -> Arc<Self> {
        let inner = Mutex::default();
        Arc::new(Self { this, inner })
    }

    /// Makes a session's queue, for as long as the guard is held.
    pub(crate) fn open(self: &Arc<Self>) -> (SpokenGuard, mpsc::Receiver<v1::PeerMessage>) {
        let mut name = [0; NAME];
        let (node, secret) = name.split_at_mut(8);
        node.copy_from_slice(&self.this.0.to_be_bytes());
        secret.copy_from_slice(&random::<16>());
        let (queue, messages) = mpsc::channel(MOST_WAITING);
        self.lock().insert(name, Speaker { next: 1, queue });
        let attached = Arc::clone(self);
        (SpokenGuard { attached, name }, messages)
    }

    /// Queues those of a call's messages that have not been queued before, as far as there is room.
    ///
    /// # Errors
    /// When there is no such session, messages are missing, there are too many, or there is no room for any.
    pub(crate) fn hear(&self, call: &v1::SendRequest) -> Result<Spoken, SessionError> {
        if call.messages.len() > MOST_IN_A_CALL {
            return Err(SessionError::Invalid(vec![Violation {
                field: "messages".to_owned(),
                problem: format!("are more than {MOST_IN_A_CALL}"),
            }]));
        }
        let name: Name = call.session[..].try_into().or(Err(SessionError::Gone))?;
        let (node, _) = name.split_first_chunk().ok_or(SessionError::Gone)?;
        let node = NodeId(u64::from_be_bytes(*node));
        if node != self.this {
            return Ok(Spoken::There(node));
        }
        let mut inner = self.lock();
        let speaker = inner.get_mut(&name).ok_or(SessionError::Gone)?;
        speaker.take(call).map(Spoken::Here)
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Speaker>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speaker {
    fn take(&mut self, call: &v1::SendRequest) -> Result<u64, SessionError> {
        let next = self.next;
        let gap = SessionError::Gap {
            next,
            sequence: call.sequence,
        };
        let known = next.checked_sub(call.sequence).ok_or(gap)?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        for message in call.messages.iter().skip(known) {
            match self.queue.try_send(message.clone()) {
                Ok(()) => self.next += 1,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(SessionError::Gone),
                Err(mpsc::error::TrySendError::Full(_)) if self.next > next => break,
                Err(mpsc::error::TrySendError::Full(_)) => return Err(SessionError::Backlog),
            }
        }
        Ok(self.next)
    }
}

impl SpokenGuard {
    /// What the peer calls the session.
    pub(crate) fn name(&self) -> Vec<u8> {
        self.name.to_vec()
    }
}

impl Drop for SpokenGuard {
    fn drop(&mut self) {
        self.attached.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(session: &[u8], sequence: u64, messages: usize) -> v1::SendRequest {
        v1::SendRequest {
            session: session.to_vec(),
            sequence,
            messages: vec![v1::PeerMessage::default(); messages],
        }
    }

    #[test]
    fn each_message_is_queued_once_and_in_order() {
        let attached = Attached::new(NodeId(3));
        let (guard, mut messages) = attached.open();
        let name = guard.name();
        let table = [
            // sequence, messages, what comes next, how many were queued by it
            (1, 2, 3, 2),
            (1, 2, 3, 0),
            (2, 3, 5, 2),
            (5, 0, 5, 0),
            (1, 1, 5, 0),
        ];
        for (sequence, count, next, queued) in table {
            let heard = attached.hear(&call(&name, sequence, count)).unwrap();
            assert_eq!(heard, Spoken::Here(next));
            let mut read = 0;
            while messages.try_recv().is_ok() {
                read += 1;
            }
            assert_eq!(read, queued, "{sequence} {count}");
        }
        let gap = attached.hear(&call(&name, 6, 1));
        assert!(matches!(
            gap,
            Err(SessionError::Gap {
                next: 5,
                sequence: 6
            })
        ));
        assert!(messages.try_recv().is_err());
    }

    #[test]
    fn what_has_no_room_is_left_to_the_peer() {
        let attached = Attached::new(NodeId(3));
        let (guard, mut messages) = attached.open();
        let name = guard.name();
        assert_eq!(
            attached.hear(&call(&name, 1, 64)).unwrap(),
            Spoken::Here(65)
        );
        messages.try_recv().unwrap();
        assert_eq!(
            attached.hear(&call(&name, 65, 64)).unwrap(),
            Spoken::Here(129)
        );
        assert_eq!(
            attached.hear(&call(&name, 129, 64)).unwrap(),
            Spoken::Here(130)
        );
        let full = attached.hear(&call(&name, 130, 1));
        assert!(matches!(full, Err(SessionError::Backlog)));
        let many = attached.hear(&call(&name, 130, 65));
        assert!(matches!(many, Err(SessionError::Invalid(_))));
    }

    #[test]
    fn a_session_is_found_by_its_whole_name_for_as_long_as_it_lasts() {
        let attached = Attached::new(NodeId(3));
        let (guard, _messages) = attached.open();
        let name = guard.name();
        let mut guess = name.clone();
        guess[NAME - 1] ^= 1;
        let mut elsewhere = name.clone();
        elsewhere[7] = 4;
        for wrong in [&guess[..], &name[1..], b""] {
            let heard = attached.hear(&call(wrong, 1, 1));
            assert!(matches!(heard, Err(SessionError::Gone)), "{wrong:?}");
        }
        let heard = attached.hear(&call(&elsewhere, 1, 1)).unwrap();
        assert_eq!(heard, Spoken::There(NodeId(4)));
        drop(guard);
        let heard = attached.hear(&call(&name, 1, 1));
        assert!(matches!(heard, Err(SessionError::Gone)));
    }
}
