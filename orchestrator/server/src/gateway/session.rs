//! One peer's session: the task that reads what the peer says.

use core::num::NonZeroU32;
use std::sync::Arc;

use espalier_orchestrator_core::link::Said;
use espalier_orchestrator_core::{Locality, PeerId};
use espalier_proto::v1::{self, peer_message::Kind, signal};
use futures::{Stream, StreamExt as _};
use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tonic::Status;

use super::line::{Closing, Line};
use super::switchboard::Switchboard;
use crate::metrics;
use crate::status::{SessionError, Violation};
use crate::translate::{self, Faults};

/// Longest session description, bytes.
const MAX_SDP: usize = 64 * 1024;
/// Longest candidate, or reason for a refusal, bytes.
const MAX_LINE: usize = 4 * 1024;

/// What a peer says, however it comes.
pub(crate) trait Incoming:
    Stream<Item = Result<v1::PeerMessage, Status>> + Unpin + Send + 'static
{
}

impl<S> Incoming for S where
    S: Stream<Item = Result<v1::PeerMessage, Status>> + Unpin + Send + 'static
{
}

/// What a session's task works with.
pub(crate) struct SessionStart {
    pub(crate) peer: PeerId,
    pub(crate) attachment: u64,
    /// Where the peer is, as this gateway sees it.
    pub(crate) locality: Locality,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) line: Line,
    pub(crate) messages_per_second: u32,
}

/// Reads what one peer says until the session ends.
pub(crate) struct Session {
    start: SessionStart,
    pace: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
}

/// What a session does after a message.
enum Next {
    Read,
    Left,
}

impl Session {
    pub(crate) fn new(start: SessionStart) -> Self {
        let rate = NonZeroU32::new(start.messages_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN));
        let pace = RateLimiter::direct(Quota::per_second(rate).allow_burst(burst));
        Self { start, pace }
    }

    /// Reads until the peer leaves, its stream ends, or somebody closes the line.
    pub(crate) async fn run<S: Incoming>(self, mut incoming: S) {
        let _open = metrics::SessionGauge::new();
        let line = self.start.line.clone();
        let outcome = tokio::select! {
            () = line.closed() => Ok(Next::Read),
            outcome = self.read(&mut incoming) => outcome,
        };
        self.finish(outcome);
    }

    async fn read<S: Incoming>(&self, incoming: &mut S) -> Result<Next, SessionError> {
        loop {
            // A peer that says too much is read more slowly; its connection's flow control does the rest.
            self.pace.until_ready().await;
            let Some(Ok(message)) = incoming.next().await else {
                return Ok(Next::Read);
            };
            let Some(kind) = message.kind else { continue };
            if let Next::Left = self.hear(kind)? {
                return Ok(Next::Left);
            }
        }
    }

    fn hear(&self, kind: Kind) -> Result<Next, SessionError> {
        let peer = self.start.peer;
        if !self.start.board.is_current(peer, self.start.attachment) {
            return Err(SessionError::Superseded);
        }
        match kind {
            Kind::Open(_) => return Err(SessionError::OutOfOrder("Open comes first, and once")),
            Kind::Acknowledge(acknowledge) => {
                let generation = acknowledge.generation.map(translate::generation);
                let generation = generation.ok_or_else(|| missing("acknowledge.generation"))?;
                self.say(Said::Acknowledged(generation))?;
            }
            Kind::Signal(signal) => self.signal(signal)?,
            Kind::Report(report) => {
                let report = translate::peer_report(&report);
                self.start.board.report(peer, self.start.attachment, report);
            }
            Kind::WantTracks(wanted) => {
                let tracks = translate::want_tracks(&wanted).map_err(SessionError::Invalid)?;
                self.say(Said::WantTracks(tracks))?;
            }
            Kind::Profile(profile) => {
                let profile = translate::profile(Some(&profile), self.start.locality);
                self.say(Said::Profile(profile))?;
            }
            Kind::LinkEvent(event) => {
                let report = translate::link_event(peer, &event).map_err(SessionError::Invalid)?;
                tracing::debug!(%peer, neighbour = event.neighbour, state = ?event.state(), detail = event.detail, "link");
                self.say(Said::Link(report))?;
            }
            Kind::SourceEvent(event) => {
                let report =
                    translate::source_event(peer, &event).map_err(SessionError::Invalid)?;
                self.say(Said::Source(report))?;
            }
            Kind::Leave(_) => return Ok(Next::Left),
        }
        Ok(Next::Read)
    }

    fn signal(&self, signal: v1::Signal) -> Result<(), SessionError> {
        let mut faults = Faults::default();
        let to = faults.parse("signal.peer", &signal.peer);
        check_signal(&mut faults, &signal);
        let to = faults.result(to).map_err(SessionError::Invalid)?;
        self.start.board.signal(self.start.peer, to, signal);
        Ok(())
    }

    fn say(&self, said: Said) -> Result<(), SessionError> {
        let SessionStart {
            peer,
            attachment,
            board,
            ..
        } = &self.start;
        board.say(*peer, *attachment, said)
    }

    fn finish(&self, outcome: Result<Next, SessionError>) {
        let SessionStart {
            peer,
            attachment,
            board,
            line,
            ..
        } = &self.start;
        match outcome {
            Ok(Next::Left) => {
                board.leave(*peer, *attachment);
                line.close(Closing::AfterQueue);
            }
            Ok(Next::Read) => line.close(Closing::AfterQueue),
            Err(error) => {
                tracing::debug!(%peer, %error, "a session is ended");
                line.close(Closing::Now(Box::new(Status::from(error))));
            }
        }
        board.detach(*peer, *attachment);
    }
}

fn missing(field: &str) -> SessionError {
    let violation = Violation {
        field: field.to_owned(),
        problem: "is missing".to_owned(),
    };
    SessionError::Invalid(vec![violation])
}

fn check_signal(faults: &mut Faults, signal: &v1::Signal) {
    let (field, length, most) = match &signal.kind {
        Some(signal::Kind::OfferSdp(sdp)) => ("signal.offer_sdp", sdp.len(), MAX_SDP),
        Some(signal::Kind::AnswerSdp(sdp)) => ("signal.answer_sdp", sdp.len(), MAX_SDP),
        Some(signal::Kind::Candidate(line)) => ("signal.candidate", line.len(), MAX_LINE),
        Some(signal::Kind::Refused(why)) => ("signal.refused", why.len(), MAX_LINE),
        None => {
            faults.add("signal.kind", "is missing");
            return;
        }
    };
    if length > most {
        faults.add(field, format!("is longer than {most} bytes"));
    }
}
