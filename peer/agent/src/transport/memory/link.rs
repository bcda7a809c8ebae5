//! The handle of a link in memory: checks, queues, returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::super::{
    Link, LinkId, MAX_CANDIDATE_BYTES, MAX_CANDIDATES, MAX_MESSAGE_BYTES, MAX_PING_BYTES,
    MAX_SDP_BYTES, SendError, Signal, SignalError, TransportConfig,
};
use super::end::End;

/// The handle; see the module.
#[derive(Debug)]
pub(super) struct MemoryLink {
    pub(super) end: Arc<End>,
    pub(super) frames: mpsc::Sender<Bytes>,
    pub(super) pings: mpsc::Sender<Bytes>,
    pub(super) answers: mpsc::Sender<String>,
    pub(super) candidates: AtomicUsize,
    pub(super) awaits_answer: AtomicBool,
    pub(super) _closes_when_dropped: DropGuard,
}

impl Link for MemoryLink {
    fn id(&self) -> LinkId {
        self.end.id
    }

    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        if self.end.closing.is_cancelled() || self.answers.is_closed() {
            return Ok(());
        }
        match signal {
            Signal::Offer(_) => Err(SignalError::Unexpected),
            Signal::Answer(sdp) => {
                check_size(&sdp, MAX_SDP_BYTES)?;
                let expected = self.awaits_answer.swap(false, Ordering::AcqRel);
                if !expected || self.answers.try_send(sdp).is_err() {
                    return Err(SignalError::Unexpected);
                }
                Ok(())
            }
            Signal::Candidate(json) if json.is_empty() => Ok(()),
            Signal::Candidate(json) => {
                check_size(&json, MAX_CANDIDATE_BYTES)?;
                if self.candidates.fetch_add(1, Ordering::AcqRel) >= MAX_CANDIDATES {
                    return Err(SignalError::TooManyCandidates {
                        limit: MAX_CANDIDATES,
                    });
                }
                Ok(())
            }
        }
    }

    fn try_send(&self, header: &[u8], payload: &[u8]) -> Result<(), SendError> {
        let bytes = header.len() + payload.len();
        check_sendable(&self.end, bytes, MAX_MESSAGE_BYTES)?;
        if bytes == 0 {
            return Ok(());
        }
        let limit = TransportConfig::default().send_limit;
        self.end.reserve(bytes, limit)?;
        let mut message = BytesMut::with_capacity(bytes);
        message.put_slice(header);
        message.put_slice(payload);
        self.frames.try_send(message.freeze()).map_err(|error| {
            self.end.release(bytes);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full {
                    buffered: self.end.buffered(),
                },
                mpsc::error::TrySendError::Closed(_) => SendError::NotOpen,
            }
        })
    }

    fn try_ping(&self, message: &[u8]) -> Result<(), SendError> {
        check_sendable(&self.end, message.len(), MAX_PING_BYTES)?;
        match self.pings.try_send(Bytes::copy_from_slice(message)) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::NotOpen),
        }
    }

    fn buffered(&self) -> usize {
        self.end.buffered()
    }

    fn close(&self) {
        self.end.closing.cancel();
    }
}

fn check_size(text: &str, limit: usize) -> Result<(), SignalError> {
    if text.len() > limit {
        return Err(SignalError::TooLarge {
            bytes: text.len(),
            limit,
        });
    }
    Ok(())
}

fn check_sendable(end: &End, bytes: usize, limit: usize) -> Result<(), SendError> {
    if bytes > limit {
        return Err(SendError::TooLarge { bytes, limit });
    }
    if !end.is_open() {
        return Err(SendError::NotOpen);
    }
    Ok(())
}
