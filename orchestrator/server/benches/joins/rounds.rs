//! Rounds of so many operations in flight, and what they took.

use core::fmt;
use std::time::{Duration, Instant};

/// What is measured how long.
#[derive(Clone)]
pub(crate) struct Rounds {
    pub(crate) length: Duration,
    pub(crate) in_flight: Vec<usize>,
}

/// One round's outcome.
pub(crate) struct Round {
    in_flight: usize,
    per_second: f64,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Rounds {
    /// Runs each round: `operation` says how long its measured part took, given its worker's number.
    pub(crate) async fn run<F>(&self, operation: impl Fn(usize) -> F) -> anyhow::Result<Vec<Round>>
    where
        F: Future<Output = anyhow::Result<Duration>>,
    {
        let mut measured = Vec::new();
        for &in_flight in &self.in_flight {
            let begun = Instant::now();
            let workers = (0..in_flight).map(|worker| {
                let operation = &operation;
                async move {
                    let mut took = Vec::new();
                    while begun.elapsed() < self.length {
                        took.push(operation(worker).await?);
                    }
                    anyhow::Ok(took)
                }
            });
            let took = futures::future::try_join_all(workers).await?;
            let round = Round::of(in_flight, begun.elapsed(), took.concat());
            eprintln!("{round}");
            measured.push(round);
        }
        Ok(measured)
    }
}

impl Round {
    pub(crate) const HEADINGS: &str =
        "whose     in flight   per second      p50 ms      p99 ms      max ms";

    fn of(in_flight: usize, length: Duration, mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a list"
            )]
            let place = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
            took.get(place).copied().unwrap_or_default()
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let per_second = took.len() as f64 / length.as_secs_f64();
        Self {
            in_flight,
            per_second,
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "in_flight": self.in_flight,
            "per_second": self.per_second,
            "p50_ms": millis(self.p50),
            "p99_ms": millis(self.p99),
            "max_ms": millis(self.max),
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9}{:>13.0}{:>12.1}{:>12.1}{:>12.1}",
            self.in_flight,
            self.per_second,
            millis(self.p50),
            millis(self.p99),
            millis(self.max)
        )
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
