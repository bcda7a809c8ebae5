//! How soon a signer finds a new segment, and how many playlist requests it needs for that.
//!
//! `cargo bench -p espalier-signer --bench detection -- [SECONDS]` (30 s per case by default) runs
//! regular, uncached origins on loopback in real time and prints, for each: p50, p95 and the longest
//! time from the segment's listing to its announcement and to its signed statement, and the playlist
//! requests per target duration.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use espalier_media::StatementKey;
use espalier_signer::{FeedEvent, Signer, SignerConfig, SignerState};
use support::{Live, Origin};

/// The first findings of a signer, while it learns the rhythm, are left out: up to a fifth of the
/// target duration late, with 6 s segments almost a second.
const LEARNING: usize = 6;

struct Case {
    name: &'static str,
    period: Duration,
    target_s: u32,
    /// Each listing is late by up to this much, in a fixed pattern.
    jitter: Duration,
}

#[derive(Default)]
struct Figures {
    announced: Vec<Duration>,
    signed: Vec<Duration>,
    per_target: f64,
    most_per_target: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(30);
    let ms = Duration::from_millis;
    let cases = [
        Case {
            name: "2 s, regular",
            period: ms(2000),
            target_s: 2,
            jitter: ms(0),
        },
        Case {
            name: "2 s, 50 ms jitter",
            period: ms(2000),
            target_s: 2,
            jitter: ms(50),
        },
        Case {
            name: "1 s, regular",
            period: ms(1000),
            target_s: 1,
            jitter: ms(0),
        },
        Case {
            name: "6.006 s, 20 ms jitter",
            period: ms(6006),
            target_s: 7,
            jitter: ms(20),
        },
    ];
    println!(
        "{:<24}{:>5}  {:>27}  {:>27}  {:>20}",
        "origin", "n", "announced p50/p95/max ms", "signed p50/p95/max ms", "polls/target mean/max"
    );
    let running = cases.map(|case| {
        tokio::spawn(async move {
            let figures = Box::pin(measure(&case, Duration::from_secs(seconds))).await;
            (case.name, figures)
        })
    });
    for case in running {
        let (name, figures) = case.await.expect("a case");
        println!(
            "{name:<24}{:>5}  {:>27}  {:>27}  {:>14.2}/{}",
            figures.announced.len(),
            quantiles(&figures.announced),
            quantiles(&figures.signed),
            figures.per_target,
            figures.most_per_target
        );
    }
}

async fn measure(case: &Case, duration: Duration) -> Figures {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.head = format!(
        "#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n",
        case.target_s
    );
    live.period = case.period;
    live.publish(0..6);
    let config = SignerConfig {
        origin_uri: live.url(),
        key: StatementKey::from_seed(&[1; 32]),
        state: SignerState::default(),
    };
    let signer = Signer::start(config).expect("a signer");
    let mut subscription = signer.subscribe();
    let findings = tokio::spawn(async move {
        let (mut announced, mut signed) = (Vec::new(), Vec::new());
        while let Ok(event) = subscription.next().await {
            let now = Instant::now();
            match event {
                FeedEvent::Announce(announcement) => {
                    announced.push((announcement.key.sequence, now))
                }
                FeedEvent::Statement(statement) => signed.extend(
                    statement
                        .statement()
                        .as_object()
                        .map(|object| (object.key.sequence, now)),
                ),
                FeedEvent::CaughtUp | FeedEvent::Origin(_) => {}
            }
        }
        (announced, signed)
    });
    let listed = list(case, &mut live, duration).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    signer.shutdown().await;
    let (announced, signed) = findings.await.expect("the reader");
    let late = |found: &[(u64, Instant)]| {
        let late = |(number, at): &(u64, Instant)| {
            let sent = found.iter().find(|(sequence, _)| sequence == number)?;
            Some(sent.1.saturating_duration_since(*at))
        };
        listed.iter().skip(LEARNING).filter_map(late).collect()
    };
    let (per_target, most_per_target) = polls(case, &origin, &live.path());
    Figures {
        announced: late(&announced),
        signed: late(&signed),
        per_target,
        most_per_target,
    }
}

/// Lists segments in the case's rhythm; returns when each was.
async fn list(case: &Case, live: &mut Live, duration: Duration) -> Vec<(u64, Instant)> {
    let started = tokio::time::Instant::now();
    let mut listed = Vec::new();
    for count in 1.. {
        let noise = f64::from(count * 7919 % 101) / 100.0;
        let at = started + case.period * count + case.jitter.mul_f64(noise);
        if at > started + duration.max(case.period * 12) {
            break;
        }
        tokio::time::sleep_until(at).await;
        let number = u64::from(count) + 5;
        live.publish([number]);
        listed.push((number, Instant::now()));
    }
    listed
}

/// Counts the polls per target duration: the mean, and the most in any stretch of one.
fn polls(case: &Case, origin: &Origin, path: &str) -> (f64, usize) {
    let target = Duration::from_secs(case.target_s.into());
    let log = origin.log();
    let polls: Vec<Instant> = log
        .iter()
        .filter(|hit| hit.path == path)
        .map(|hit| hit.at)
        .collect();
    let (Some(first), Some(last)) = (polls.first(), polls.last()) else {
        return (0.0, 0);
    };
    let mean = polls.len() as f64 * target.as_secs_f64() / (*last - *first).as_secs_f64();
    // Polls exactly one target duration apart are not in one stretch of it, however the loopback
    // shifts them.
    let stretch = target - Duration::from_millis(20);
    let most = polls.iter().map(|start| {
        polls
            .iter()
            .filter(|poll| *poll >= start && **poll < *start + stretch)
            .count()
    });
    (mean, most.max().unwrap_or(0))
}

fn quantiles(late: &[Duration]) -> String {
    let mut late: Vec<f64> = late
        .iter()
        .map(|late| late.as_secs_f64() * 1000.0)
        .collect();
    late.sort_by(f64::total_cmp);
    let quantile =
        |per_cent: usize| late.get((late.len() * per_cent / 100).min(late.len().saturating_sub(1)));
    match (quantile(50), quantile(95), late.last()) {
        (Some(p50), Some(p95), Some(max)) => format!("{p50:.0}/{p95:.0}/{max:.0}"),
        _ => "-".to_owned(),
    }
}
