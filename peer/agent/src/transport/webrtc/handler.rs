//! Carries the crate's callbacks to the connection's task. They run inside the crate's driver, which
//! also drives the protocol's timers, so they must never wait.

use std::sync::Arc;

use ::webrtc::peer_connection::{
    PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState,
};
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::runtime::LinkRuntime;

/// What the crate reports about a peer connection.
#[derive(Debug)]
pub(super) enum Report {
    /// A local candidate, as JSON.
    Candidate(String),
    /// No more local candidates will come.
    GatheringComplete,
    /// The path broke or was closed.
    Broken(RTCPeerConnectionState),
}

/// More than a machine has addresses and servers.
const CAPACITY: usize = 128;

/// Sends reports; see the module.
#[derive(Debug)]
pub(super) struct Handler {
    reports: mpsc::Sender<Report>,
    runtime: Arc<LinkRuntime>,
}

impl Handler {
    pub(super) fn new(runtime: Arc<LinkRuntime>) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(CAPACITY);
        (Self { reports, runtime }, receiver)
    }

    fn report(&self, report: Report) {
        if let Err(error) = self.reports.try_send(report) {
            tracing::debug!(%error, "a report of the peer connection is dropped");
        }
    }
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let json = event
            .candidate
            .to_json()
            .map_err(|error| error.to_string())
            .and_then(|init| serde_json::to_string(&init).map_err(|error| error.to_string()));
        match json {
            Ok(json) => self.report(Report::Candidate(json)),
            Err(error) => tracing::warn!(error, "a local candidate cannot be written"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.report(Report::GatheringComplete);
        }
    }

    /// ICE has a path: the first DTLS flight is ready and would wait.
    async fn on_ice_connection_state_change(&self, _state: RTCIceConnectionState) {
        self.runtime.nudge();
    }

    /// DTLS is done: SCTP's INIT is ready and would wait.
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.runtime.nudge();
        if matches!(
            state,
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed
        ) {
            self.report(Report::Broken(state));
        }
    }
}
