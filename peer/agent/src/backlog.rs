//! How fast the uplink carries bytes while it is what holds them back: pure.
//!
//! Counted is only time through which some link was behind. A link gets more to send only when it is told
//! to, and the meter is read before that, so a link that is behind now has been so since the last reading.
//! When all children are served as fast as they are fed, nothing is counted: how much more the uplink would
//! carry cannot be told from that.

use tokio::time::Instant;

/// More than this waiting is more than one chunk: the next one came before the last had left.
const BEHIND: u64 = 64 * 1024;

/// What one link has to send, as last read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    buffered: u64,
    behind: bool,
}

/// Counts over all links.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Bytes that have left, of all links since the start.
    left: u64,
    /// How many links are behind.
    behind: u32,
    /// When it was last read, and what had left by then.
    last: Option<(Instant, u64)>,
    micros: u64,
    bytes: u64,
}

impl Backlog {
    /// Takes in that a link has this much to send, `added` of it since the last reading.
    pub(crate) fn read(&mut self, link: &mut Reading, buffered: u64, added: u64, now: Instant) {
        let held = link.buffered + added;
        self.left += held.saturating_sub(buffered);
        let was_behind = self.behind > 0;
        let behind = buffered > BEHIND;
        self.behind = self.behind + u32::from(behind) - u32::from(link.behind);
        *link = Reading { buffered, behind };
        self.count(now, was_behind && self.behind > 0);
    }

    /// Forgets a link that is gone; what it had to send has not left.
    pub(crate) fn remove(&mut self, link: &mut Reading, now: Instant) {
        self.behind -= u32::from(link.behind);
        *link = Reading::default();
        self.count(now, false);
    }

    fn count(&mut self, now: Instant, behind: bool) {
        if let Some((at, left)) = self.last.filter(|_| behind) {
            let micros = now.saturating_duration_since(at).as_micros();
            self.micros += u64::try_from(micros).unwrap_or(0);
            self.bytes += self.left - left;
        }
        self.last = Some((now, self.left));
    }

    /// Milliseconds through which some link was behind, and the bytes that left meanwhile.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.micros / 1000, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CHUNK: u64 = 60 * 1024;

    fn times() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |ms| start + Duration::from_millis(ms)
    }

    #[test]
    fn a_link_that_keeps_up_counts_nothing() {
        let (mut backlog, mut link, at) = (Backlog::default(), Reading::default(), times());
        for round in 0..10 {
            backlog.read(&mut link, CHUNK, CHUNK, at(100 * round));
            backlog.read(&mut link, 0, 0, at(100 * round + 20));
        }
        assert_eq!(backlog.totals(), (0, 0));
    }

    #[test]
    fn only_what_leaves_while_a_link_stays_behind_counts() {
        let (mut backlog, mut link, at) = (Backlog::default(), Reading::default(), times());
        backlog.read(&mut link, 3 * CHUNK, 3 * CHUNK, at(0));
        backlog.read(&mut link, 2 * CHUNK, 0, at(40));
        assert_eq!(backlog.totals(), (40, CHUNK));
        // It was not behind all the time until now.
        backlog.read(&mut link, CHUNK, 0, at(80));
        assert_eq!(backlog.totals(), (40, CHUNK));
        // Nothing was in the way until the next chunks came.
        backlog.read(&mut link, 3 * CHUNK, 2 * CHUNK, at(1080));
        assert_eq!(backlog.totals(), (40, CHUNK));
        backlog.read(&mut link, 2 * CHUNK + 1, 0, at(1090));
        assert_eq!(backlog.totals(), (50, 2 * CHUNK - 1));
    }

    #[test]
    fn what_other_links_send_meanwhile_counts_too() {
        let (mut backlog, at) = (Backlog::default(), times());
        let (mut slow, mut fast) = (Reading::default(), Reading::default());
        backlog.read(&mut slow, 3 * CHUNK, 3 * CHUNK, at(0));
        backlog.read(&mut fast, CHUNK, CHUNK, at(0));
        backlog.read(&mut fast, 0, 0, at(30));
        backlog.read(&mut slow, 2 * CHUNK, 0, at(30));
        assert_eq!(backlog.totals(), (30, 2 * CHUNK));
    }

    #[test]
    fn a_link_that_is_gone_is_not_behind_and_what_it_held_has_not_left() {
        let (mut backlog, mut link, at) = (Backlog::default(), Reading::default(), times());
        backlog.read(&mut link, 4 * CHUNK, 4 * CHUNK, at(0));
        backlog.remove(&mut link, at(50));
        let mut other = Reading::default();
        backlog.read(&mut other, CHUNK, CHUNK, at(60));
        backlog.read(&mut other, 0, 0, at(70));
        assert_eq!(backlog.totals(), (0, 0));
    }
}
