//! What a peer's uplink carries, learned from what it has carried: pure.
//!
//! A claim is only the most that is ever planned with. A newcomer starts with what one child costs, and
//! pays its way up: the peer sends no faster than its budget, so what it has sent shows whether the budget
//! was there to be used.
//!
//! | a report says | then |
//! |---|---|
//! | children waited, and the budget was sent all the same | more: half as much again, at least one child |
//! | nobody waited, and at least half of the budget was sent | the same |
//! | children waited, less than two thirds was sent, and somebody was late | less: what was sent |
//! | two children were late, whatever was sent | less: a quarter |
//!
//! Lateness of one child alone lowers nothing, unless the peer itself says that it could not keep up: the
//! child's own downlink may be at fault, or the child may lie. Two liars can take a quarter each
//! [`CALM_AFTER_LOWERING`], down to one child's cost and no further; the raises win back half each report.
//! Lost packets lower nothing: SCTP fills the queue of a home's router, which is loss enough.
//!
//! Hysteresis: after a lowering nothing is raised for [`CALM_BEFORE_RAISING`], and nothing lowered again for
//! [`CALM_AFTER_LOWERING`]. Budgets are told in whole children, so that a breath is no news.

use core::time::Duration;

use crate::events::PeerReport;
use crate::ids::PeerId;

/// What a newcomer has at least, if it claims as much, wire bit/s: before the tracks' rates are known.
pub(crate) const LEAST_START_BPS: u64 = 1_000_000;
/// Reports closer together say too little.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long lateness counts.
const LATE_COUNTS: Duration = Duration::from_secs(10);
const CALM_BEFORE_RAISING: Duration = Duration::from_secs(60);
const CALM_AFTER_LOWERING: Duration = Duration::from_secs(10);

/// What is known of one peer's uplink.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    claim_bps: u64,
    budget_bps: u64,
    /// The counters when they were last looked at.
    last: Option<(Duration, Counted)>,
    /// The last two different children that were late, and when.
    late: [Option<(PeerId, Duration)>; 2],
    lowered_at: Option<Duration>,
}

/// The counters of a report that are learned from.
#[derive(Debug, Clone, Copy)]
struct Counted {
    sent_bytes: u64,
    backlogged_ms: u64,
    backlogged_bytes: u64,
}

/// What costs what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    /// One child, wire bit/s.
    pub(crate) child_bps: u64,
    /// Wire bytes per payload byte, per mille.
    pub(crate) overhead_permille: u32,
}

impl Upload {
    /// A newcomer that claims this much.
    pub(crate) fn new(claim_bps: u64, costs: Costs) -> Self {
        let start = costs.child_bps.max(LEAST_START_BPS);
        Self::resumed(claim_bps, start)
    }

    /// A peer of which an earlier owner has learned this much.
    pub(crate) fn resumed(claim_bps: u64, budget_bps: u64) -> Self {
        Self {
            claim_bps,
            budget_bps: budget_bps.min(claim_bps),
            last: None,
            late: [None; 2],
            lowered_at: None,
        }
    }

    /// Takes in what the peer claims from now on.
    pub(crate) fn claim(&mut self, claim_bps: u64) {
        self.claim_bps = claim_bps;
        self.budget_bps = self.budget_bps.min(claim_bps);
    }

    /// Returns what is planned with, in whole children where it is enough for one.
    pub(crate) fn planned_bps(&self, costs: Costs) -> u64 {
        let child = costs.child_bps.max(1);
        match self.budget_bps / child {
            0 => self.budget_bps,
            children => children.saturating_mul(child),
        }
    }

    /// Takes in the peer's counters.
    pub(crate) fn report(&mut self, report: &PeerReport, costs: Costs, now: Duration) {
        let counted = Counted {
            sent_bytes: report.bytes_to_peers,
            backlogged_ms: report.backlogged_ms,
            backlogged_bytes: report.backlogged_bytes,
        };
        let Some((at, before)) = self.last else {
            self.last = Some((now, counted));
            return;
        };
        if now < at + SHORTEST {
            return;
        }
        self.last = Some((now, counted));
        let Some(grown) = counted.since(&before) else {
            // The peer has started anew.
            return;
        };
        self.learn(&grown, now - at, costs, now);
    }

    fn learn(&mut self, grown: &Counted, over: Duration, costs: Costs, now: Duration) {
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let waited = grown.backlogged_ms.min(over_ms) >= over_ms / 4;
        let late = self.late.iter().flatten();
        let late = late.filter(|(_, at)| *at + LATE_COUNTS > now).count();
        let (bytes, ms) = if waited {
            (grown.backlogged_bytes, grown.backlogged_ms)
        } else {
            (grown.sent_bytes, over_ms)
        };
        let rate = wire_bps(bytes, ms, costs.overhead_permille);
        let of_budget = |part: u64, of: u64| {
            u128::from(rate) * u128::from(of) >= u128::from(self.budget_bps) * u128::from(part)
        };
        // A peer paces itself below its budget by a tenth.
        let used = if waited {
            of_budget(3, 4)
        } else {
            of_budget(1, 2)
        };
        if used && late == 0 {
            self.raise(costs, now);
        } else if waited && late > 0 && !of_budget(2, 3) {
            self.lower(rate, costs, now);
        }
    }

    /// Takes in that a child says that this peer is late.
    pub(crate) fn late(&mut self, child: PeerId, costs: Costs, now: Duration) {
        let [one, other] = &mut self.late;
        match (one.as_mut(), other.as_mut()) {
            (Some((known, at)), _) | (_, Some((known, at))) if *known == child => *at = now,
            _ => {
                self.late.swap(0, 1);
                self.late[0] = Some((child, now));
            }
        }
        let counts =
            |late: &Option<(PeerId, Duration)>| late.is_some_and(|(_, at)| at + LATE_COUNTS > now);
        if self.late.iter().all(counts) {
            self.lower(self.budget_bps - self.budget_bps / 4, costs, now);
        }
    }

    fn raise(&mut self, costs: Costs, now: Duration) {
        if self
            .lowered_at
            .is_some_and(|at| now < at + CALM_BEFORE_RAISING)
        {
            return;
        }
        let more = (self.budget_bps / 2).max(costs.child_bps);
        self.budget_bps = self.budget_bps.saturating_add(more).min(self.claim_bps);
    }

    fn lower(&mut self, to_bps: u64, costs: Costs, now: Duration) {
        if self
            .lowered_at
            .is_some_and(|at| now < at + CALM_AFTER_LOWERING)
        {
            return;
        }
        let least = costs.child_bps.min(self.budget_bps);
        self.budget_bps = to_bps.clamp(least, self.budget_bps);
        self.lowered_at = Some(now);
    }
}

impl Counted {
    /// What was added since; `None` if a counter fell.
    fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            sent_bytes: self.sent_bytes.checked_sub(before.sent_bytes)?,
            backlogged_ms: self.backlogged_ms.checked_sub(before.backlogged_ms)?,
            backlogged_bytes: self.backlogged_bytes.checked_sub(before.backlogged_bytes)?,
        })
    }
}

fn wire_bps(bytes: u64, ms: u64, overhead_permille: u32) -> u64 {
    let bits = u128::from(bytes) * 8 * u128::from(overhead_permille);
    u64::try_from(bits / u128::from(ms.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHILD: u64 = 2_400_000;
    const COSTS: Costs = Costs {
        child_bps: CHILD,
        overhead_permille: 1200,
    };

    /// A peer whose uplink carries so much, reporting every two seconds.
    struct Line {
        upload: Upload,
        carries_bps: u64,
        report: PeerReport,
        now: Duration,
    }

    impl Line {
        fn new(claim_bps: u64, carries_bps: u64) -> Self {
            Self {
                upload: Upload::new(claim_bps, COSTS),
                carries_bps,
                report: PeerReport::default(),
                now: Duration::ZERO,
            }
        }

        fn planned(&self) -> u64 {
            self.upload.planned_bps(COSTS)
        }

        /// Two seconds with as many children as are planned, or fewer.
        fn pass(&mut self, most_children: u64) {
            let children = (self.planned() / CHILD).min(most_children);
            let wanted = children * CHILD;
            let sent = wanted.min(self.carries_bps);
            self.now += Duration::from_secs(2);
            let bytes = sent * 2 / 8 * 1000 / 1200;
            self.report.bytes_to_peers += bytes;
            if sent < wanted {
                self.report.backlogged_ms += 2000;
                self.report.backlogged_bytes += bytes;
                for child in 0..children {
                    self.upload.late(PeerId(child), COSTS, self.now);
                }
            }
            self.upload.report(&self.report, COSTS, self.now);
        }
    }

    #[test]
    fn a_newcomer_has_one_child_whatever_it_claims() {
        for (claim, planned) in [
            (0, 0),
            (CHILD - 1, CHILD - 1),
            (CHILD, CHILD),
            (100 * CHILD, CHILD),
        ] {
            let upload = Upload::new(claim, COSTS);
            assert_eq!(upload.planned_bps(COSTS), planned, "{claim}");
        }
    }

    #[test]
    fn what_is_used_and_carried_grows_to_the_claim_and_no_further() {
        let mut line = Line::new(10 * CHILD, 100 * CHILD);
        for _ in 0..8 {
            line.pass(u64::MAX);
        }
        assert_eq!(line.planned(), 10 * CHILD);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut line = Line::new(10 * CHILD, 100 * CHILD);
        for _ in 0..50 {
            line.pass(1);
        }
        assert!(line.planned() <= 3 * CHILD, "{}", line.planned());
    }

    #[test]
    fn a_liar_about_its_upload_is_found_out_and_stays_near_what_it_carries() {
        let mut line = Line::new(50 * CHILD, 3 * CHILD);
        let mut over = 0;
        for round in 0..150 {
            line.pass(u64::MAX);
            if round > 10 && line.planned() > 4 * CHILD {
                over += 1;
            }
        }
        assert!(line.planned() >= CHILD);
        // Five minutes: it is tried again once a minute, and found out within ten seconds.
        assert!(over <= 40, "{over} of 140 reports");
    }

    #[test]
    fn one_child_that_is_late_lowers_nothing_and_two_do() {
        let mut upload = Upload::resumed(8 * CHILD, 8 * CHILD);
        let at = Duration::from_secs;
        for second in 0..60 {
            upload.late(PeerId(1), COSTS, at(second));
        }
        assert_eq!(upload.planned_bps(COSTS), 8 * CHILD);
        upload.late(PeerId(2), COSTS, at(60));
        assert_eq!(upload.planned_bps(COSTS), 6 * CHILD);
        upload.late(PeerId(1), COSTS, at(61));
        assert_eq!(upload.planned_bps(COSTS), 6 * CHILD, "not at once again");
        for second in 62..1000 {
            upload.late(PeerId(second % 2), COSTS, at(second));
        }
        assert_eq!(
            upload.planned_bps(COSTS),
            CHILD,
            "the floor for any number of liars"
        );
    }

    #[test]
    fn after_a_lowering_nothing_is_raised_for_a_while() {
        let mut line = Line::new(8 * CHILD, 100 * CHILD);
        line.upload = Upload::resumed(8 * CHILD, 4 * CHILD);
        for child in [1, 2] {
            line.upload.late(PeerId(child), COSTS, line.now);
        }
        let lowered = line.planned();
        assert_eq!(lowered, 3 * CHILD);
        while line.now < Duration::from_secs(58) {
            line.pass(u64::MAX);
            assert_eq!(line.planned(), lowered, "{:?}", line.now);
        }
        for _ in 0..5 {
            line.pass(u64::MAX);
        }
        assert_eq!(line.planned(), 8 * CHILD);
    }

    #[test]
    fn a_peer_that_starts_anew_is_no_news() {
        let mut line = Line::new(8 * CHILD, 100 * CHILD);
        line.pass(1);
        let before = line.planned();
        line.report = PeerReport::default();
        line.pass(0);
        assert_eq!(line.planned(), before);
    }

    proptest! {
        #[test]
        fn a_budget_is_never_above_the_claim_nor_below_one_child_once_it_had_one(
            claim in 0_u64..100 * CHILD,
            events in prop::collection::vec((0_u8..4, any::<u32>(), any::<u32>(), 0_u64..30), 0..200),
        ) {
            let mut upload = Upload::new(claim, COSTS);
            let mut now = Duration::ZERO;
            for (kind, one, other, seconds) in events {
                now += Duration::from_secs(seconds);
                match kind {
                    0 => upload.late(PeerId(u64::from(one % 3)), COSTS, now),
                    _ => {
                        let report = PeerReport {
                            bytes_to_peers: u64::from(one) * 1000,
                            backlogged_ms: u64::from(other),
                            backlogged_bytes: u64::from(one),
                            ..PeerReport::default()
                        };
                        upload.report(&report, COSTS, now);
                    }
                }
                let planned = upload.planned_bps(COSTS);
                prop_assert!(planned <= claim);
                prop_assert!(planned >= claim.min(CHILD));
            }
        }
    }
}
