//! The handle of a link: checks what it is given, queues it, and returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::webrtc::peer_connection::RTCIceCandidateInit;
use bytes::{BufMut, Bytes, BytesMut};
use rtc::ice::candidate::unmarshal_candidate;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::{
    Link, LinkId, MAX_CANDIDATE_BYTES, MAX_CANDIDATES, MAX_MESSAGE_BYTES, MAX_PING_BYTES,
    MAX_SDP_BYTES, SendError, Signal, SignalError,
};

/// Messages that may wait for the sending task. The bound that matters is the send limit in bytes;
/// this one holds back a flood of tiny messages.
const QUEUED_MESSAGES: usize = 1024;

/// Pings that may wait; one that finds no room is dropped, as it would be on the way.
const QUEUED_PINGS: usize = 4;

/// A signal that has been checked for size and form.
#[derive(Debug)]
pub(super) enum CheckedSignal {
    Answer(String),
    Candidate(RTCIceCandidateInit),
}

/// What the handle and the link's tasks both see.
#[derive(Debug, Default)]
pub(super) struct LinkState {
    open: AtomicBool,
    /// Bytes that the sending task has not taken yet.
    queued: AtomicUsize,
    /// Bytes in SCTP's hands, as last asked.
    outstanding: AtomicUsize,
}

impl LinkState {
    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn buffered(&self) -> usize {
        self.queued.load(Ordering::Acquire) + self.outstanding.load(Ordering::Acquire)
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Moves bytes from the queue into SCTP's hands. In this order a reader may see them twice for a
    /// moment, never not at all.
    pub(super) fn taken(&self, bytes: usize) {
        self.outstanding.fetch_add(bytes, Ordering::AcqRel);
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Sets what SCTP said to have in its hands; returns what was known before.
    pub(super) fn set_outstanding(&self, bytes: usize) -> usize {
        self.outstanding.swap(bytes, Ordering::AcqRel)
    }

    fn reserve(&self, bytes: usize, limit: usize) -> Result<(), SendError> {
        let outstanding = self.outstanding();
        self.queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                (queued + outstanding + bytes <= limit).then_some(queued + bytes)
            })
            .map(drop)
            .map_err(|queued| SendError::Full {
                buffered: queued + outstanding,
            })
    }

    fn release(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The other ends of a handle's queues, for the link's tasks.
#[derive(Debug)]
pub(super) struct LinkEnds {
    pub(super) state: Arc<LinkState>,
    pub(super) frames: mpsc::Receiver<BytesMut>,
    pub(super) pings: mpsc::Receiver<Bytes>,
    pub(super) signals: mpsc::Receiver<CheckedSignal>,
    pub(super) closing: CancellationToken,
}

/// The handle; see the module.
#[derive(Debug)]
pub(super) struct WebRtcLink {
    id: LinkId,
    send_limit: usize,
    state: Arc<LinkState>,
    frames: mpsc::Sender<BytesMut>,
    pings: mpsc::Sender<Bytes>,
    signals: mpsc::Sender<CheckedSignal>,
    candidates: AtomicUsize,
    /// Whether an answer may still come.
    awaits_answer: AtomicBool,
    closing: CancellationToken,
    _closes_when_dropped: DropGuard,
}

impl WebRtcLink {
    pub(super) fn new(
        id: LinkId,
        offering: bool,
        send_limit: usize,
        transport_closing: &CancellationToken,
    ) -> (Self, LinkEnds) {
        let state = Arc::new(LinkState::default());
        let closing = transport_closing.child_token();
        let (frames, frames_end) = mpsc::channel(QUEUED_MESSAGES);
        let (pings, pings_end) = mpsc::channel(QUEUED_PINGS);
        let (signals, signals_end) = mpsc::channel(MAX_CANDIDATES + 1);
        let ends = LinkEnds {
            state: Arc::clone(&state),
            frames: frames_end,
            pings: pings_end,
            signals: signals_end,
            closing: closing.clone(),
        };
        let link = Self {
            id,
            send_limit,
            state,
            frames,
            pings,
            signals,
            candidates: AtomicUsize::new(0),
            awaits_answer: AtomicBool::new(offering),
            closing: closing.clone(),
            _closes_when_dropped: closing.drop_guard(),
        };
        (link, ends)
    }

    fn check(&self, signal: Signal) -> Result<Option<CheckedSignal>, SignalError> {
        match signal {
            Signal::Offer(_) => Err(SignalError::Unexpected),
            Signal::Answer(sdp) => {
                check_size(&sdp, MAX_SDP_BYTES)?;
                if !self.awaits_answer.swap(false, Ordering::AcqRel) {
                    return Err(SignalError::Unexpected);
                }
                Ok(Some(CheckedSignal::Answer(sdp)))
            }
            Signal::Candidate(json) if json.is_empty() => Ok(None),
            Signal::Candidate(json) => {
                check_size(&json, MAX_CANDIDATE_BYTES)?;
                if self.candidates.fetch_add(1, Ordering::AcqRel) >= MAX_CANDIDATES {
                    return Err(SignalError::TooManyCandidates {
                        limit: MAX_CANDIDATES,
                    });
                }
                parse_candidate(&json)
            }
        }
    }
}

impl Link for WebRtcLink {
    fn id(&self) -> LinkId {
        self.id
    }

    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        if self.closing.is_cancelled() || self.signals.is_closed() {
            return Ok(());
        }
        let Some(checked) = self.check(signal)? else {
            return Ok(());
        };
        // There is room for every signal that `check` lets through, so this fails only when the link
        // has closed meanwhile, and then the signal does not matter.
        if let Err(error) = self.signals.try_send(checked) {
            tracing::debug!(link = %self.id, %error, "a signal comes after the end");
        }
        Ok(())
    }

    fn try_send(&self, header: &[u8], payload: &[u8]) -> Result<(), SendError> {
        let bytes = header.len() + payload.len();
        if bytes > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLarge {
                bytes,
                limit: MAX_MESSAGE_BYTES,
            });
        }
        if !self.state.is_open() {
            return Err(SendError::NotOpen);
        }
        if bytes == 0 {
            return Ok(());
        }
        self.state.reserve(bytes, self.send_limit)?;
        let mut message = BytesMut::with_capacity(bytes);
        message.put_slice(header);
        message.put_slice(payload);
        self.frames.try_send(message).map_err(|error| {
            self.state.release(bytes);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full {
                    buffered: self.state.buffered(),
                },
                mpsc::error::TrySendError::Closed(_) => SendError::NotOpen,
            }
        })
    }

    fn try_ping(&self, message: &[u8]) -> Result<(), SendError> {
        if message.len() > MAX_PING_BYTES {
            return Err(SendError::TooLarge {
                bytes: message.len(),
                limit: MAX_PING_BYTES,
            });
        }
        if !self.state.is_open() {
            return Err(SendError::NotOpen);
        }
        match self.pings.try_send(Bytes::copy_from_slice(message)) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::NotOpen),
        }
    }

    fn buffered(&self) -> usize {
        self.state.buffered()
    }

    fn close(&self) {
        self.closing.cancel();
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

/// Reads a candidate. One that says "no more will come", or that this transport has no use for, is
/// nothing to pass on and no mistake.
fn parse_candidate(json: &str) -> Result<Option<CheckedSignal>, SignalError> {
    let init: RTCIceCandidateInit =
        serde_json::from_str(json).map_err(|error| SignalError::Malformed(error.to_string()))?;
    let line = init
        .candidate
        .strip_prefix("candidate:")
        .unwrap_or(&init.candidate);
    if line.is_empty() {
        return Ok(None);
    }
    let candidate =
        unmarshal_candidate(line).map_err(|error| SignalError::Malformed(error.to_string()))?;
    if candidate.network_type().is_tcp() {
        return Ok(None);
    }
    Ok(Some(CheckedSignal::Candidate(init)))
}
