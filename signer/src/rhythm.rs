//! When to ask for a playlist.
//!
//! Intuition: a live origin lists segments in the rhythm of their durations. Once the moment of one
//! appearance is known to within some uncertainty, the next can be predicted, so a few polls round
//! that moment find a segment sooner than many spread evenly. Each finding narrows the bracket
//! between the last poll without the segment and the first with it, and so the uncertainty.
//!
//! Rule: the first poll of a cycle is at the prediction less the uncertainty, the next ones follow
//! closely, later ones at a fifth of the target duration; in no stretch of one target duration are
//! there more than [`POLLS_PER_TARGET`] polls.
//!
//! Rejected: polling at half the target duration, as players do (a second late on average with
//! 2 s segments); long polls, which only low-latency origins answer.
//!
//! Not here: what the playlist says, and whether its numbering is sane.

use std::collections::VecDeque;
use std::time::Duration;

/// The most polls in any stretch of one target duration.
const POLLS_PER_TARGET: usize = 5;
/// Close polls are at least this far apart.
const CLOSEST: f64 = 0.040;
/// How long before a cycle's first poll its segment may have been there already, if that finds it.
const UNSEEN: f64 = 0.080;
/// From this uncertainty on, it is halved rather than searched through, where polls are scarce.
const WIDE: f64 = 0.100;
/// The uncertainty that is assumed of the most regular origin.
const LEAST_UNCERTAINTY: f64 = 0.020;
/// How much of a finding's deviation the prediction follows.
const GAIN: f64 = 0.3;
/// The shortest wait after a failed poll.
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(250);
/// The longest wait, whatever happened.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// The poll times of one playlist.
#[derive(Debug)]
pub(crate) struct PollSchedule {
    target: Duration,
    /// When the last polls were sent, oldest first.
    sent: VecDeque<Duration>,
    next: Duration,
    /// Since when polls fail, or since when the origin says that it has ended.
    trouble: Option<Duration>,
    /// When the newest segment was found.
    found: Option<Duration>,
    /// When the last poll was sent that showed nothing new since.
    absent: Option<Duration>,
    /// Seconds of media listed since the start.
    media: f64,
    /// The usual length of a segment, in seconds.
    usual: f64,
    rhythm: Option<Rhythm>,
    ended: bool,
}

/// Where the media's time lies in ours.
#[derive(Debug, Clone, Copy)]
struct Rhythm {
    /// Our time, in seconds, less the media's at the moment that a segment appears.
    offset: f64,
    /// By how many seconds the next appearance may miss its prediction, either way.
    uncertainty: f64,
    /// The usual miss.
    jitter: f64,
}

impl PollSchedule {
    /// Polls at once.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            target: Duration::from_secs(2),
            sent: VecDeque::new(),
            next: now,
            trouble: None,
            found: None,
            absent: None,
            media: 0.0,
            usual: 0.0,
            rhythm: None,
            ended: false,
        }
    }

    /// Returns when the next poll is due.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// Returns the target duration that it goes by.
    pub(crate) fn target(&self) -> Duration {
        self.target
    }

    /// Whether the next segment should have been there by now.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        match self.rhythm {
            Some(rhythm) => now.as_secs_f64() > self.due(&rhythm) + rhythm.uncertainty,
            None => true,
        }
    }

    /// Whether the playlist should have changed long since.
    pub(crate) fn is_frozen(&self, now: Duration) -> bool {
        let patience = Duration::from_secs_f64(self.usual) + self.target.mul_f64(1.5);
        !self.ended && self.found.is_some_and(|found| now > found + patience)
    }

    /// A poll was sent.
    pub(crate) fn sent(&mut self, now: Duration) {
        self.sent.push_back(now);
        if self.sent.len() > POLLS_PER_TARGET {
            self.sent.pop_front();
        }
    }

    /// The playlist that was asked for at `sent` lists new segments of these durations.
    pub(crate) fn found(
        &mut self,
        target: Duration,
        new: &[Duration],
        sent: Duration,
        now: Duration,
    ) {
        self.target = target;
        self.trouble = None;
        self.ended = false;
        let first = self.found.is_none();
        self.media += new.iter().map(Duration::as_secs_f64).sum::<f64>();
        self.usual = usual(new, self.usual);
        if first {
            // Nothing is known about when these appeared.
            self.media = 0.0;
        } else {
            self.learn(new.len(), sent, now);
        }
        self.found = Some(now);
        self.absent = None;
        self.plan(now);
    }

    /// The playlist that was asked for at `sent` lists nothing new.
    pub(crate) fn unchanged(&mut self, sent: Duration, now: Duration) {
        self.trouble = None;
        self.absent = Some(sent);
        self.plan(now);
    }

    /// A poll failed, or its answer is of no use.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.absent = None;
        let since = *self.trouble.get_or_insert(now);
        self.plan_at(now + back_off(now - since));
    }

    /// The origin said that there will be nothing more; it may change its mind.
    pub(crate) fn ended(&mut self, now: Duration) {
        let since = if self.ended { self.trouble } else { None }.unwrap_or(now);
        self.trouble = Some(since);
        self.ended = true;
        self.plan_at(now + back_off(now - since).max(self.target / 4));
    }

    /// The answer is doubtful: ask again soon.
    pub(crate) fn doubtful(&mut self, now: Duration) {
        self.trouble = None;
        self.absent = None;
        self.plan_at(now + self.target / 5);
    }

    /// The numbering starts anew: what was learned is void.
    pub(crate) fn forget(&mut self) {
        self.found = None;
        self.absent = None;
        self.rhythm = None;
        self.media = 0.0;
    }

    /// Narrows the rhythm down to the bracket in which the newest segment appeared.
    fn learn(&mut self, count: usize, sent: Duration, now: Duration) {
        let hit = now.as_secs_f64();
        // A find by a cycle's first poll has no lower end but what was thought possible.
        let unseen = sent.as_secs_f64() - UNSEEN;
        let possible = self.rhythm.map_or(unseen, |known| {
            unseen.min(known.offset + self.media - known.uncertainty)
        });
        let miss = self.absent.map_or(possible, |absent| absent.as_secs_f64());
        let (middle, half) = (f64::midpoint(miss, hit), (hit - miss).max(0.0) / 2.0);
        let measured = middle - self.media;
        let rhythm = match self.rhythm {
            // Several at once, or too far off to be jitter: the rhythm has changed.
            Some(known) if count == 1 && (measured - known.offset).abs() < self.usual / 2.0 => {
                let deviation = measured - known.offset;
                // A bracket that holds the prediction confirms it to within its own width.
                let error = (deviation.abs() - half).max(0.0);
                // Only a miss beyond what was uncertain anyway is the origin's own.
                let miss = (error - known.uncertainty).max(0.0);
                let jitter = known.jitter + GAIN * (miss - known.jitter);
                let gain = if half < known.uncertainty { 1.0 } else { GAIN };
                let narrowed = half.min(known.uncertainty).max(known.uncertainty / 2.0);
                Rhythm {
                    offset: known.offset + deviation * gain,
                    uncertainty: narrowed.max(3.0 * jitter).max(LEAST_UNCERTAINTY),
                    jitter,
                }
            }
            _ => Rhythm {
                offset: measured,
                uncertainty: half.max(LEAST_UNCERTAINTY),
                jitter: 0.0,
            },
        };
        self.rhythm = Some(Rhythm {
            uncertainty: rhythm.uncertainty.min(self.usual / 2.0),
            ..rhythm
        });
    }

    /// When, in our time, the next segment should appear.
    fn due(&self, rhythm: &Rhythm) -> f64 {
        rhythm.offset + self.media + self.usual
    }

    fn plan(&mut self, now: Duration) {
        let spread = self.target / 5;
        let Some(rhythm) = self.rhythm else {
            let frozen = self.frozen_wait(now);
            return self.plan_at(now + frozen.unwrap_or(spread));
        };
        let (due, present) = (self.due(&rhythm), now.as_secs_f64());
        let (first, close) = self.cycle(&rhythm, due);
        let next = if present < first && self.absent.is_none() {
            Duration::from_secs_f64(first)
        } else if present < due + rhythm.uncertainty + close {
            now + Duration::from_secs_f64(close)
        } else {
            now + self.frozen_wait(now).unwrap_or(spread)
        };
        self.plan_at(next);
    }

    /// Returns a cycle's first poll, and how far apart the next ones are.
    fn cycle(&self, rhythm: &Rhythm, due: f64) -> (f64, f64) {
        let wide = rhythm.uncertainty > WIDE;
        if wide && self.usual < 0.97 * self.target.as_secs_f64() {
            // A cycle is shorter than the stretch that the budget is for, so many polls in this one
            // would delay the next one's. Two polls halve what is uncertain.
            (due, rhythm.uncertainty)
        } else {
            // Four close polls span what is uncertain.
            let widest = (self.target / 5).as_secs_f64().max(CLOSEST);
            (
                due - rhythm.uncertainty,
                (rhythm.uncertainty / 2.0).clamp(CLOSEST, widest),
            )
        }
    }

    /// Once frozen, how long to wait: the longer it lasts, the longer.
    fn frozen_wait(&self, now: Duration) -> Option<Duration> {
        let found = self.found.filter(|_| self.is_frozen(now))?;
        Some(back_off(now - found).max(self.target / 4))
    }

    /// Plans a poll, but never more of them than allowed.
    fn plan_at(&mut self, at: Duration) {
        let budget = (self.sent.len() == POLLS_PER_TARGET)
            .then(|| self.sent.front().map(|oldest| *oldest + self.target))
            .flatten();
        self.next = at.max(budget.unwrap_or(at));
    }
}

/// How long to wait when something has been wrong for this long: an eighth of it, so that a recovery
/// is noticed late by an eighth of the outage at the most, and within bounds.
pub(crate) fn back_off(trouble: Duration) -> Duration {
    (trouble / 8).clamp(SHORTEST_BACK_OFF, LONGEST_BACK_OFF)
}

/// The usual length of a segment: a running mean.
fn usual(new: &[Duration], before: f64) -> f64 {
    new.iter()
        .map(Duration::as_secs_f64)
        .filter(|seconds| *seconds > 0.0)
        .fold(before, |mean, seconds| {
            if mean == 0.0 {
                seconds
            } else {
                mean + GAIN * (seconds - mean)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An origin that lists a segment each `period`, as much as `jitter` too late; returns how long
    /// after their appearance segments were found, and the most polls in one target duration.
    fn follow(period: f64, target: f64, jitter: f64, segments: u64) -> (Vec<f64>, usize) {
        let appears = |n: u64| {
            let noise = (n.wrapping_mul(2_654_435_761) % 1000) as f64 / 1000.0;
            0.137 + n as f64 * period + noise * jitter
        };
        let rtt = Duration::from_millis(4);
        let target = Duration::from_secs_f64(target);
        let mut schedule = PollSchedule::new(Duration::ZERO);
        let (mut listed, mut late, mut polls) = (None, Vec::new(), Vec::new());
        while listed.is_none_or(|listed| listed < segments) {
            let sent = schedule.next();
            polls.push(sent);
            schedule.sent(sent);
            let sampled = (sent + rtt / 2).as_secs_f64();
            let newest = (0..=segments).take_while(|n| appears(*n) <= sampled).last();
            let now = sent + rtt;
            match (newest, listed) {
                (Some(newest), before) if before.is_none_or(|before| newest > before) => {
                    late.push(now.as_secs_f64() - appears(newest));
                    let count = newest - before.unwrap_or(0);
                    let new = vec![
                        Duration::from_secs_f64(period);
                        usize::try_from(count.max(1)).expect("few")
                    ];
                    schedule.found(target, &new, sent, now);
                    listed = Some(newest);
                }
                _ => schedule.unchanged(sent, now),
            }
        }
        let most = polls.iter().map(|start| {
            polls
                .iter()
                .filter(|poll| (*start..*start + target).contains(poll))
                .count()
        });
        (late, most.max().unwrap_or(0))
    }

    fn p95(mut late: Vec<f64>) -> f64 {
        late.sort_by(f64::total_cmp);
        late[late.len() * 95 / 100]
    }

    #[test]
    fn regular_origins_are_found_within_a_tenth_of_a_second() {
        for (period, target, jitter) in [
            (2.0, 2.0, 0.0),
            (2.0, 2.0, 0.02),
            (2.0, 2.0, 0.05),
            (2.002, 2.0, 0.01),
            (1.92, 2.0, 0.01),
            (6.0, 6.0, 0.03),
            (4.0, 5.0, 0.0),
            (1.0, 1.0, 0.01),
        ] {
            let (late, most) = follow(period, target, jitter, 400);
            let p95 = p95(late);
            println!("{period} {target} {jitter}: p95 {p95:.3} polls {most}");
            assert!(p95 <= 0.1, "p95 {p95:.3} s at {period} {target} {jitter}");
            assert!(
                most <= POLLS_PER_TARGET,
                "{most} polls at {period} {target} {jitter}"
            );
        }
    }

    #[test]
    fn an_irregular_origin_gets_no_more_polls() {
        let (late, most) = follow(2.0, 2.0, 1.5, 400);
        assert!(most <= POLLS_PER_TARGET, "{most}");
        let p95 = p95(late);
        assert!(p95 <= 1.0, "p95 {p95:.3} s");
    }

    #[test]
    fn failures_back_off_to_a_bound() {
        let mut schedule = PollSchedule::new(Duration::ZERO);
        let mut waits = Vec::new();
        while schedule.next() < Duration::from_secs(120) {
            let now = schedule.next();
            schedule.sent(now);
            schedule.failed(now);
            waits.push(schedule.next() - now);
        }
        assert_eq!(waits[0], SHORTEST_BACK_OFF);
        assert_eq!(waits.last(), Some(&LONGEST_BACK_OFF));
        assert!(waits.len() < 60, "{}", waits.len());
    }

    #[test]
    fn what_has_ended_is_asked_for_less_and_less() {
        let mut schedule = PollSchedule::new(Duration::ZERO);
        let second = Duration::from_secs(1);
        schedule.sent(Duration::ZERO);
        schedule.found(2 * second, &[2 * second], Duration::ZERO, Duration::ZERO);
        schedule.ended(Duration::ZERO);
        assert_eq!(schedule.next(), second / 2);
        while schedule.next() < 60 * second {
            let now = schedule.next();
            schedule.sent(now);
            schedule.ended(now);
        }
        let last = schedule.next();
        schedule.ended(last);
        assert_eq!(schedule.next() - last, LONGEST_BACK_OFF);
        assert!(!schedule.is_frozen(60 * second));
    }

    #[test]
    fn a_frozen_origin_is_polled_less_and_less() {
        let second = Duration::from_secs(1);
        let mut schedule = PollSchedule::new(Duration::ZERO);
        schedule.sent(Duration::ZERO);
        schedule.found(2 * second, &[2 * second], Duration::ZERO, Duration::ZERO);
        let mut polls = Vec::new();
        while schedule.next() < 100 * second {
            let now = schedule.next();
            schedule.sent(now);
            schedule.unchanged(now, now);
            polls.push(now);
        }
        assert!(!schedule.is_frozen(4 * second));
        assert!(schedule.is_frozen(6 * second));
        let last = polls.len() - 1;
        assert_eq!(polls[last] - polls[last - 1], LONGEST_BACK_OFF);
        assert!(polls.len() < 60, "{}", polls.len());
    }
}
