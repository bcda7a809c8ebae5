//! Links over WebRTC data channels, with the `webrtc` crate.
//!
//! The crate's defaults are unusable here: no bound on what is sent, socket buffers that overflow in
//! bursts, a peer connection that takes a second to open. What this module sets instead, and why, is
//! said where it is set; `benches/datapath.rs` keeps it honest.
//!
//! A link is four tasks of its own and one of the crate. `connection` drives the handshake and owns
//! the peer connection; two tasks in `channel` receive; one in `sender` sends. When `connection`
//! ends, the others have ended and the sockets are closed.
//!
//! It does not gather relay candidates (TURN), use mDNS, or restart ICE: a path that breaks closes
//! the link, and the engine makes a new one.

mod addresses;
mod channel;
mod connection;
mod handler;
mod heap;
mod link;
mod runtime;
mod sender;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Connection, Side};
use self::link::WebRtcLink;
use self::runtime::LinkRuntime;
use super::config::is_stun_uri;
use super::{
    EventSender, Link, LinkError, LinkId, MAX_SDP_BYTES, MAX_STUN_SERVERS, Transport,
    TransportConfig, TransportConfigError,
};

/// A window that still holds any message.
const SMALLEST_WINDOW: u32 = 96 * 1024;

/// Makes WebRTC links.
#[derive(Debug)]
pub struct WebRtcTransport {
    config: Arc<TransportConfig>,
    /// The settings for the next link: with the STUN servers that the control plane named.
    current: Mutex<Arc<TransportConfig>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl WebRtcTransport {
    /// Makes a transport; keeps nothing bound until the first link.
    ///
    /// # Errors
    /// All the settings that cannot work.
    pub fn new(config: TransportConfig) -> Result<Self, Vec<TransportConfigError>> {
        config.validate()?;
        heap::keep_freed();
        let receive_window = fitting_window(&config);
        let config = Arc::new(TransportConfig {
            receive_window,
            ..config
        });
        Ok(Self {
            current: Mutex::new(Arc::clone(&config)),
            config,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    fn current(&self) -> Arc<TransportConfig> {
        let current = self.current.lock();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn start(
        &self,
        id: LinkId,
        side: Side,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        if self.closing.is_cancelled() {
            return Err(LinkError::ShutDown);
        }
        let addresses = addresses::to_bind(&self.config.bind);
        if addresses.is_empty() {
            return Err(LinkError::NoAddress);
        }
        let (link, ends) = WebRtcLink::new(
            id,
            side.is_offering(),
            self.config.send_limit,
            &self.closing,
        );
        let connection = Connection {
            id,
            addresses,
            config: self.current(),
            runtime: Arc::new(LinkRuntime::new(
                self.config.socket_buffer,
                self.tasks.clone(),
            )),
            events,
            ends,
        };
        self.tasks.spawn(connection.run(side));
        Ok(Arc::new(link))
    }
}

/// Returns the window that the sockets can hold when it arrives in one burst. The kernel counts about
/// 2.3 KiB for each packet, which carries about half of that.
fn fitting_window(config: &TransportConfig) -> u32 {
    let granted = match runtime::granted_receive_buffer(config.socket_buffer) {
        Ok(granted) => granted,
        Err(error) => {
            tracing::warn!(%error, "the size of socket buffers is unknown");
            return config.receive_window;
        }
    };
    let fits = u32::try_from(granted * 2 / 5)
        .unwrap_or(u32::MAX)
        .max(SMALLEST_WINDOW);
    if fits < config.receive_window {
        tracing::info!(
            granted,
            window = fits,
            "small socket buffers (net.core.rmem_max) limit links"
        );
    }
    fits.min(config.receive_window)
}

#[async_trait]
impl Transport for WebRtcTransport {
    fn offer(&self, link: LinkId, events: EventSender) -> Result<Arc<dyn Link>, LinkError> {
        self.start(link, Side::Offering, events)
    }

    fn accept(
        &self,
        link: LinkId,
        offer_sdp: String,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        if offer_sdp.len() > MAX_SDP_BYTES {
            return Err(LinkError::OfferTooLarge {
                bytes: offer_sdp.len(),
                limit: MAX_SDP_BYTES,
            });
        }
        self.start(link, Side::Accepting(offer_sdp), events)
    }

    fn use_stun(&self, uris: &[String]) {
        let named = uris.iter().filter(|uri| is_stun_uri(uri));
        let mut config = (*self.config).clone();
        config.stun.extend(named.take(MAX_STUN_SERVERS).cloned());
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
