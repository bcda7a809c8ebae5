//! Whether the other end of a link lives: any byte is life, and who hears none for a while asks for one.
//!
//! ICE takes 5–28 s to call a killed peer dead; a player's buffer is shorter. A second without a byte
//! makes the other end *silent* (its missing chunks are asked elsewhere); four make it *dead*. Well
//! before that a ping on the unordered channel asks for a sign of life, which no lost packet holds up.
//! While something is heard there is nothing to ask: on a link that carries a stream pings would cost as
//! many wake-ups as its chunks do. What to do about silence or death is not decided here.

use core::time::Duration;

use crate::frame::{PING_LENGTH, Ping};

/// How long a source or standby is unheard before it is pinged, and between such pings.
pub const PING_INTERVAL: Duration = Duration::from_millis(250);
/// The same for a neighbour that nothing is taken from: only its death matters.
pub const IDLE_PING_INTERVAL: Duration = Duration::from_millis(500);
/// A link is pinged at least this often, however much is heard, to know its round-trip time.
pub const RTT_INTERVAL: Duration = Duration::from_secs(5);
/// A link without a byte for this long is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A link without a byte for this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(4);

/// How the other end of a link seems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// Something was heard within the last second.
    Alive,
    /// Nothing for a second.
    Silent,
    /// Nothing for four.
    Dead,
}

/// Heartbeats of one link.
#[derive(Debug, Clone)]
pub(crate) struct Liveness {
    heard: Duration,
    /// How much silence is borne before a ping.
    patience: Duration,
    /// Nonce and time of the newest ping.
    pinged: Option<(u64, Duration)>,
    rtt: Option<Duration>,
}

impl Liveness {
    /// A link that opened now.
    #[must_use]
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            heard: now,
            patience: PING_INTERVAL,
            pinged: None,
            rtt: None,
        }
    }

    /// Something arrived, whatever it was, or was acknowledged.
    pub(crate) fn on_bytes(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    /// An answer to a ping; one that answers another than the newest ping says nothing about the path.
    pub(crate) fn on_pong(&mut self, nonce: u64, now: Duration) {
        if let Some((newest, sent)) = self.pinged
            && newest == nonce
        {
            let sample = now.saturating_sub(sent);
            // Weighted as in RFC 6298: one part in eight.
            self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt - rtt / 8 + sample / 8));
        }
    }

    /// Bears with as much silence as is right for a source (or a standby), or for another neighbour.
    pub(crate) fn set_source(&mut self, is_source: bool) {
        self.patience = if is_source {
            PING_INTERVAL
        } else {
            IDLE_PING_INTERVAL
        };
    }

    /// Whether the other end was said to be a source.
    pub(crate) fn is_source(&self) -> bool {
        self.patience == PING_INTERVAL
    }

    /// When to ask for a sign of life, if none comes before. The first ping goes out at once.
    fn next_ping(&self) -> Duration {
        self.pinged.map_or(Duration::ZERO, |(_, at)| {
            (self.heard.max(at) + self.patience).min(at + RTT_INTERVAL)
        })
    }

    /// Takes the ping that is due, with the given nonce.
    pub(crate) fn take_ping(&mut self, nonce: u64, now: Duration) -> Option<[u8; PING_LENGTH]> {
        if now < self.next_ping() {
            return None;
        }
        self.pinged = Some((nonce, now));
        Some(Ping::Ping(nonce).encode())
    }

    /// How the other end seems now.
    #[must_use]
    pub(crate) fn health(&self, now: Duration) -> Health {
        let silence = now.saturating_sub(self.heard);
        if silence >= DEAD_AFTER {
            Health::Dead
        } else if silence >= SILENT_AFTER {
            Health::Silent
        } else {
            Health::Alive
        }
    }

    /// The smoothed round-trip time, once known.
    #[must_use]
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// When something is to be done or changes by itself.
    #[must_use]
    pub(crate) fn timeout(&self, now: Duration) -> Duration {
        let change = match self.health(now) {
            Health::Alive => self.heard + SILENT_AFTER,
            Health::Silent | Health::Dead => self.heard + DEAD_AFTER,
        };
        self.next_ping().min(change.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn any_byte_is_life_and_silence_is_noticed_in_time() {
        let mut liveness = Liveness::new(Duration::ZERO);
        for (at, health) in [
            (0, Health::Alive),
            (999, Health::Alive),
            (1_000, Health::Silent),
            (4_000, Health::Dead),
        ] {
            assert_eq!(liveness.health(MS * at), health, "after {at} ms");
        }
        liveness.on_bytes(MS * 3_999);
        assert_eq!(liveness.health(MS * 4_998), Health::Alive);
        // A byte that is reported late must not take life back.
        liveness.on_bytes(MS);
        assert_eq!(liveness.health(MS * 4_998), Health::Alive);
    }

    #[test]
    fn silence_is_pinged_every_quarter_second_and_only_the_newest_counts() {
        let mut liveness = Liveness::new(Duration::ZERO);
        assert!(liveness.take_ping(1, Duration::ZERO).is_some());
        assert!(liveness.take_ping(2, MS * 249).is_none());
        assert!(liveness.take_ping(2, MS * 250).is_some());
        liveness.on_pong(1, MS * 260);
        assert_eq!(liveness.rtt(), None);
        liveness.on_pong(2, MS * 290);
        assert_eq!(liveness.rtt(), Some(MS * 40));
    }

    #[test]
    fn who_is_heard_is_not_pinged_but_for_the_round_trip_time() {
        let mut liveness = Liveness::new(Duration::ZERO);
        assert!(liveness.take_ping(1, Duration::ZERO).is_some());
        for at in (100..5_000).step_by(100) {
            liveness.on_bytes(MS * at);
            assert!(liveness.take_ping(2, MS * at).is_none(), "after {at} ms");
        }
        assert!(liveness.take_ping(2, RTT_INTERVAL).is_some());
        liveness.on_bytes(MS * 5_100);
        assert!(liveness.take_ping(3, MS * 5_349).is_none());
        assert!(liveness.take_ping(3, MS * 5_350).is_some());
    }

    #[test]
    fn a_neighbour_that_nothing_is_taken_from_is_pinged_more_seldom() {
        let mut liveness = Liveness::new(Duration::ZERO);
        liveness.set_source(false);
        assert!(liveness.take_ping(1, Duration::ZERO).is_some());
        assert!(liveness.take_ping(2, MS * 499).is_none());
        liveness.set_source(true);
        assert!(liveness.take_ping(2, MS * 499).is_some());
    }

    #[test]
    fn several_pings_go_out_before_a_link_is_silent_or_dead() {
        for (is_source, until, at_least) in [(true, SILENT_AFTER, 3), (false, DEAD_AFTER, 7)] {
            let mut liveness = Liveness::new(Duration::ZERO);
            liveness.set_source(is_source);
            let mut now = Duration::ZERO;
            let mut pings = 0;
            while now < until {
                pings += u32::from(liveness.take_ping(7, now).is_some());
                now = liveness.timeout(now).max(now + MS);
            }
            assert!(pings >= at_least, "{pings} pings");
        }
    }

    #[test]
    fn the_timeout_is_the_next_ping_or_the_next_change() {
        let mut liveness = Liveness::new(Duration::ZERO);
        liveness.take_ping(1, Duration::ZERO);
        assert_eq!(liveness.timeout(Duration::ZERO), PING_INTERVAL);
        liveness.take_ping(2, MS * 900);
        assert_eq!(liveness.timeout(MS * 900), SILENT_AFTER);
    }
}
