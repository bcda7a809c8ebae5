//! A timer that is set anew after every event and seldom goes off.
//!
//! An engine names its next deadline after each event, nearly always a later one. Making a timer for
//! each would wake the thread that sleeps on the earliest, only to let it sleep again. This one stays as
//! it was set while the deadline moves away, and looks again when it goes off.
//!
//! Invariant: it is never later than the deadline that was set last (but for the clock's own grain), and
//! never reports a deadline before its time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer; see the module.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    deadline: Option<Instant>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            sleep: Box::pin(sleep_until(Instant::now())),
            deadline: None,
        }
    }
}

impl Alarm {
    /// Sets the deadline; `None`: there is none.
    pub fn set(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Waits for the deadline that was set last. Nothing is lost if the wait is given up.
    pub async fn due(&mut self) {
        poll_fn(|context| self.poll_due(context)).await;
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        if deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if self.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn goes_off_at_the_deadline_that_was_set_last() {
        let mut alarm = Alarm::default();
        for sets in [
            vec![20],
            vec![20, 60],
            vec![10_000, 20],
            vec![10_000, 5, 30],
            vec![0],
        ] {
            let start = Instant::now();
            for at in &sets {
                // As in a task's loop: what was set is waited for, and something else comes first.
                assert_eq!(alarm.due().now_or_never(), None, "{sets:?}");
                alarm.set(Some(start + MS * *at));
            }
            let last = MS * sets.last().copied().unwrap_or_default();
            timeout(LIMIT, alarm.due()).await.expect("it goes off");
            let took = start.elapsed();
            assert!(took >= last && took < MS * 5_000, "{sets:?}: {took:?}");
            alarm.set(None);
        }
    }

    #[tokio::test]
    async fn without_a_deadline_it_never_goes_off() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.due().now_or_never(), None);
        alarm.set(Some(Instant::now()));
        alarm.set(None);
        assert_eq!(alarm.due().now_or_never(), None);
    }
}
