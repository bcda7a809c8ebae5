//! What is said while the demo starts.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::output;

/// A moving line on a terminal; plain lines when nobody watches.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(headless: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        let moving = !headless && !bar.is_hidden();
        if moving {
            bar.set_style(style());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self {
            bar: moving.then_some(bar),
            started: Instant::now(),
        }
    }

    /// A step is done, or worth knowing.
    pub(crate) fn step(&self, text: impl AsRef<str>) {
        let since = self.started.elapsed().as_secs_f64();
        let line = format!("[{since:5.1}s] {}", text.as_ref());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => output::say(line),
        }
    }

    /// What is going on just now.
    pub(crate) fn doing(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }

    /// Clears the moving line away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner:.green} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
