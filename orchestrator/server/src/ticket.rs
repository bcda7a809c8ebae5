//! Resume tickets: proof that a peer's id was given to whoever shows it.
//!
//! A ticket is `version (1) · expiry in seconds since the Unix epoch (8, big-endian) · HMAC-SHA-256 (32)`
//! over a label, the channel, the peer and the expiry. It is bound to channel and peer, so it can be neither
//! moved nor prolonged by whoever holds it. Nothing is kept about tickets, so they outlive a restart as long
//! as their key does.

use core::time::Duration;
use std::time::SystemTime;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"espalier.ticket.v1\0";

/// Makes and checks resume tickets.
#[derive(Clone)]
pub(crate) struct TicketKey([u8; 32]);

impl TicketKey {
    /// Uses this key.
    #[must_use]
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Makes a ticket for `peer` in `channel` that holds for `lifetime` from `now`.
    #[must_use]
    pub(crate) fn seal(
        &self,
        channel: &str,
        peer: u64,
        now: SystemTime,
        lifetime: Duration,
    ) -> Vec<u8> {
        let expiry = seconds(now)
            .saturating_add(lifetime.as_secs())
            .to_be_bytes();
        let tag = self.mac(channel, peer, expiry).finalize().into_bytes();
        [&[VERSION][..], &expiry, &tag].concat()
    }

    /// Returns whether `ticket` was made by this key for this peer in this channel, and still holds.
    #[must_use]
    pub(crate) fn admits(&self, ticket: &[u8], channel: &str, peer: u64, now: SystemTime) -> bool {
        let Some((&VERSION, rest)) = ticket.split_first() else {
            return false;
        };
        let Some((expiry, tag)) = rest.split_first_chunk::<8>() else {
            return false;
        };
        self.mac(channel, peer, *expiry).verify_slice(tag).is_ok()
            && u64::from_be_bytes(*expiry) > seconds(now)
    }

    fn mac(&self, channel: &str, peer: u64, expiry: [u8; 8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("invariant: HMAC takes keys of every length");
        mac.update(LABEL);
        // Ids have no NUL, so no two (channel, peer) pairs give the same bytes.
        mac.update(channel.as_bytes());
        mac.update(&[0]);
        mac.update(&peer.to_be_bytes());
        mac.update(&expiry);
        mac
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_holds_for_its_peer_and_channel_until_it_expires() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let key = TicketKey::new([1; 32]);
        let hour = Duration::from_secs(3600);
        let ticket = key.seal("news", 7, now, hour);
        assert!(key.admits(&ticket, "news", 7, now));
        assert!(
            TicketKey::new([1; 32]).admits(&ticket, "news", 7, now),
            "a restart changes nothing"
        );
        assert!(!key.admits(&ticket, "news", 7, now + hour), "expired");
        assert!(!key.admits(&ticket, "sport", 7, now));
        assert!(!key.admits(&ticket, "news", 8, now));
        assert!(!TicketKey::new([2; 32]).admits(&ticket, "news", 7, now));
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert!(!key.admits(&bad, "news", 7, now), "byte {at}");
            assert!(!key.admits(&ticket[..at], "news", 7, now), "cut at {at}");
        }
        assert!(!key.admits(&[&ticket[..], &[0]].concat(), "news", 7, now));
    }
}
