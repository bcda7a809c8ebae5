//! Measured figures: printed, and written to `target/e2e/figures/<scenario>.json`.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::binaries::report_directory;
use crate::statistics::percentile;

/// The figures of one scenario, in the order in which they were measured.
#[derive(Debug)]
pub struct Figures {
    scenario: String,
    values: Map<String, Value>,
}

impl Figures {
    /// No figures yet.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            values: Map::new(),
        }
    }

    /// Records one figure; the unit is the end of its name.
    ///
    /// # Errors
    /// The value is not JSON, or the file cannot be written.
    pub fn record(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).context("a figure as JSON")?;
        eprintln!("figure {}.{name} = {value}", self.scenario);
        self.values.insert(name.to_owned(), value);
        self.write()
    }

    /// Records how a sample is distributed: count, p50, p95, max.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_sample(&mut self, name: &str, sample: &[f64]) -> Result<()> {
        let rounded =
            |per_cent| percentile(sample, per_cent).map(|value| (value * 10.0).round() / 10.0);
        let summary = serde_json::json!({
            "count": sample.len(),
            "p50": rounded(50),
            "p95": rounded(95),
            "max": rounded(100),
        });
        self.record(name, summary)
    }

    /// Written after each figure, so that a scenario that fails leaves what it had measured.
    fn write(&self) -> Result<()> {
        let directory = report_directory()?.join("figures");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.json", self.scenario));
        let text = serde_json::to_string_pretty(&self.values)?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}
