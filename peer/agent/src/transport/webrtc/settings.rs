//! The settings of a peer connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::webrtc::data_channel::RTCDataChannelInit;
use ::webrtc::error::Result;
use ::webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceServer, SettingEngine, SettingEngineBuilder,
};
use ::webrtc::runtime::Runtime;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::transport::RTCDtlsRole;

use super::super::TransportConfig;

/// How often unanswered connectivity checks are repeated and nomination is considered.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Silence after which the crate gives a connected path up: 5 s to "disconnected", 5 s more to
/// "failed". The engine's own heartbeats are faster; this only frees what nobody asks about.
const ICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Consent checks on a connected path.
const ICE_KEEPALIVE: Duration = Duration::from_secs(2);

/// Builds a peer connection that is bound to `addresses` and has not made a description yet.
pub(super) async fn build(
    config: &TransportConfig,
    addresses: Vec<SocketAddr>,
    runtime: Arc<dyn Runtime>,
    handler: Arc<dyn PeerConnectionEventHandler>,
) -> Result<Arc<dyn PeerConnection>> {
    let mut configuration = RTCConfigurationBuilder::new();
    if !config.stun.is_empty() {
        configuration = configuration.with_ice_servers(vec![RTCIceServer {
            urls: config.stun.clone(),
            ..RTCIceServer::default()
        }]);
    }
    let connection = Box::pin(
        PeerConnectionBuilder::new()
            .with_configuration(configuration.build())
            .with_setting_engine(engine(config))
            .with_runtime(runtime)
            .with_handler(handler)
            .with_udp_addrs(addresses)
            .build(),
    )
    .await?;
    Ok(Arc::new(connection))
}

fn engine(config: &TransportConfig) -> SettingEngine {
    // A pair must survive until the other peer has our answer, however long signalling takes: as many
    // checks as fit into the time that a link may take to open.
    let checks = config.open_timeout.as_millis() / CHECK_INTERVAL.as_millis();
    SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(
            Some(CHECK_INTERVAL),
            Some(u16::try_from(checks).unwrap_or(u16::MAX)),
        )
        .with_ice_timeouts(Some(ICE_TIMEOUT), Some(ICE_TIMEOUT), Some(ICE_KEEPALIVE))
        // The accepting side selects a pair before the offering side knows, so a first flight of its
        // own would arrive too early and be dropped for a second; as server it waits. It also makes the
        // offering side begin SCTP, on which `connection` relies.
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_srflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_sctp_max_receive_buffer_size(config.receive_window)
        .build()
}

/// The channel of frames: reliable, ordered, known to both sides without a handshake of its own.
pub(super) fn data_channel() -> RTCDataChannelInit {
    RTCDataChannelInit {
        ordered: true,
        max_packet_life_time: None,
        max_retransmits: None,
        protocol: String::new(),
        negotiated: Some(0),
    }
}

/// The channel of pings: a lost one is not worth a second try, and none waits for another.
pub(super) fn ping_channel() -> RTCDataChannelInit {
    RTCDataChannelInit {
        ordered: false,
        max_retransmits: Some(0),
        negotiated: Some(1),
        ..data_channel()
    }
}
