//! How the WebRTC transport binds, gathers and buffers.

use std::net::IpAddr;
use std::time::Duration;

use super::MAX_MESSAGE_BYTES;

/// Settings of the WebRTC transport. The defaults are those measured for this crate version; the
/// data-path benchmark keeps them honest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportConfig {
    /// Local addresses to bind, one UDP socket each per link; empty: every usable address of this
    /// machine but loopback, or loopback if there is nothing else.
    pub bind: Vec<IpAddr>,
    /// STUN servers (`stun:host:port`) for server-reflexive candidates.
    pub stun: Vec<String>,
    /// The SCTP receive window, bytes: what another peer may have in flight towards this one. Made
    /// smaller where the kernel grants socket buffers that a burst of it would overflow.
    pub receive_window: u32,
    /// Bytes sent and not acknowledged beyond which `try_send` refuses.
    pub send_limit: usize,
    /// The UDP sockets' kernel buffers, bytes, each way; the kernel may grant less.
    pub socket_buffer: usize,
    /// How long a link may take from its making to `Open`.
    pub open_timeout: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            bind: Vec::new(),
            stun: Vec::new(),
            receive_window: 256 * 1024,
            send_limit: 256 * 1024,
            socket_buffer: 1024 * 1024,
            open_timeout: Duration::from_secs(10),
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportConfigError {
    /// A STUN server is not of the form `stun:host[:port]`.
    #[error("stun: {0:?} is not of the form stun:host[:port]")]
    Stun(String),
    /// A receive window smaller than the largest message would never deliver it.
    #[error("receive_window: {0} bytes cannot hold a whole chunk")]
    ReceiveWindow(u32),
    /// A send limit smaller than the largest message would refuse it for ever.
    #[error("send_limit: {0} bytes cannot hold a whole chunk")]
    SendLimit(usize),
}

impl TransportConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All the settings that cannot work.
    pub fn validate(&self) -> Result<(), Vec<TransportConfigError>> {
        let mut mistakes: Vec<TransportConfigError> = self
            .stun
            .iter()
            .filter(|uri| !is_stun_uri(uri))
            .map(|uri| TransportConfigError::Stun(uri.clone()))
            .collect();
        if usize::try_from(self.receive_window).is_ok_and(|window| window < MAX_MESSAGE_BYTES) {
            mistakes.push(TransportConfigError::ReceiveWindow(self.receive_window));
        }
        if self.send_limit < MAX_MESSAGE_BYTES {
            mistakes.push(TransportConfigError::SendLimit(self.send_limit));
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }
}

/// Whether it has the form `stun:host[:port]`.
pub(super) fn is_stun_uri(uri: &str) -> bool {
    uri.strip_prefix("stun:").is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .chars()
                .all(|c| c.is_ascii_graphic() && c != '/' && c != '@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_mistake() {
        let config = TransportConfig {
            stun: vec![
                "stun:ok.example:3478".into(),
                "turn:no.example".into(),
                "stun:".into(),
            ],
            receive_window: 1000,
            send_limit: 0,
            ..TransportConfig::default()
        };
        assert_eq!(
            config.validate(),
            Err(vec![
                TransportConfigError::Stun("turn:no.example".into()),
                TransportConfigError::Stun("stun:".into()),
                TransportConfigError::ReceiveWindow(1000),
                TransportConfigError::SendLimit(0),
            ])
        );
        assert_eq!(TransportConfig::default().validate(), Ok(()));
    }
}
