//! Waiting for conditions with deadlines, and the wall clock in milliseconds.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

/// How long to pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at `condition` until it yields a value, at most for `within`.
///
/// The condition answers `Ok(None)` for "not yet". An error counts as "not yet" too (a process that is
/// starting refuses connections) and is what the caller sees if the deadline passes.
///
/// # Errors
/// The deadline passed.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let outcome = condition();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if started.elapsed() >= within {
            let seconds = within.as_secs_f64();
            return match outcome {
                Err(error) => {
                    Err(error).with_context(|| format!("waited {seconds:.0} s in vain: {what}"))
                }
                Ok(_) => bail!("waited {seconds:.0} s in vain: {what}"),
            };
        }
        sleep(PAUSE);
    }
}

/// Lets the scene go on for `span` of the stream's own time: what is observed, not a condition.
pub fn observe_for(span: Duration) {
    sleep(span);
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
