//! Pictures of runs: depth, roots, offload, interruptions and latency, each beside what cannot be beaten, as SVG
//! and PNG.

mod chart;
mod pixels;

use std::path::{Path, PathBuf};

use plotters::prelude::SVGBackend;

use super::report::Report;
use super::samples::Sample;
use chart::{Chart, Line, SIZE};
use pixels::Pixels;

/// Points that interruptions are counted between.
const SPANS: usize = 24;

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The directory could not be made.
    #[error("{} could not be made", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A chart could not be drawn or written.
    #[error("{} could not be written: {reason}", path.display())]
    Picture {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Draws the runs of one scenario into a directory, which is made if need be. The first run's bounds are drawn.
///
/// # Errors
/// If something cannot be written.
pub fn draw(reports: &[Report], to: &Path) -> Result<(), PlotError> {
    std::fs::create_dir_all(to).map_err(|source| PlotError::Directory {
        path: to.to_owned(),
        source,
    })?;
    let Some(first) = reports.first() else {
        return Ok(());
    };
    for chart in charts(first, reports) {
        let name = format!("{}-{}", first.scenario, chart.file);
        write(&chart, &to.join(name))?;
    }
    Ok(())
}

fn write(chart: &Chart, path: &Path) -> Result<(), PlotError> {
    let failed = |path: &Path, reason: String| PlotError::Picture {
        path: path.to_owned(),
        reason,
    };
    let svg = path.with_extension("svg");
    chart
        .draw(SVGBackend::new(&svg, SIZE))
        .map_err(|error| failed(&svg, error.to_string()))?;
    let png = path.with_extension("png");
    let mut pixels = Pixels::new();
    chart
        .draw(&mut pixels)
        .map_err(|error| failed(&png, error.to_string()))?;
    pixels
        .write(&png)
        .map_err(|error| failed(&png, error.to_string()))
}

fn charts(first: &Report, reports: &[Report]) -> Vec<Chart> {
    let over_time = |of: &dyn Fn(&Sample) -> f64| {
        let line = |report: &Report| Line {
            name: report.policy.clone(),
            points: report
                .series
                .iter()
                .map(|sample| (sample.seconds, of(sample)))
                .collect(),
            bound: false,
        };
        reports.iter().map(line).collect::<Vec<_>>()
    };
    let bound = |of: &dyn Fn(&Sample) -> f64| Line {
        name: "bound".to_owned(),
        points: first
            .series
            .iter()
            .map(|sample| (sample.seconds, of(sample)))
            .collect(),
        bound: true,
    };
    let chart = |file, y, lines: Vec<Line>, bound: Option<Line>| Chart {
        file,
        title: format!("{}, {} viewers: {y}", first.scenario, first.peers),
        x: "seconds",
        y,
        lines: lines.into_iter().chain(bound).collect(),
        ..Chart::default()
    };
    let depth = over_time(&|sample| sample.mean_depth);
    let roots = over_time(&|sample| f64::from(sample.roots.max(1)));
    let offload = over_time(&|sample| 100.0 * sample.offload);
    let least_depth = bound(&|sample| sample.least_mean_depth);
    let least_roots = bound(&|sample| f64::from(sample.least_roots.max(1)));
    let most_offload = bound(&|sample| {
        let part = f64::from(sample.least_roots) / f64::from(sample.viewers.max(1));
        100.0 * (1.0 - part)
    });
    vec![
        chart("depth", "mean depth", depth, Some(least_depth)),
        Chart {
            logarithmic: apart(&roots) > 20.0,
            ..chart("roots", "roots fed by the CDN", roots, Some(least_roots))
        },
        chart(
            "offload",
            "offload, %",
            offload,
            (first.series.len() > 1).then_some(most_offload),
        ),
        interruptions(first, reports, &chart),
        latency(first, reports),
    ]
}

/// How many times the smallest value the greatest is.
fn apart(lines: &[Line]) -> f64 {
    let values = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.1)
    };
    values().fold(0.0, f64::max) / values().fold(f64::MAX, f64::min)
}

fn interruptions(
    first: &Report,
    reports: &[Report],
    chart: &dyn Fn(&'static str, &'static str, Vec<Line>, Option<Line>) -> Chart,
) -> Chart {
    let lines = reports.iter().map(|report| Line {
        name: report.policy.clone(),
        points: rates(&report.series),
        bound: false,
    });
    let end = first.series.last().map_or(0.0, |sample| sample.seconds);
    let least = first.averages.least_interruptions;
    let bound = Line {
        name: "bound".to_owned(),
        points: vec![(0.0, least), (end, least)],
        bound: true,
    };
    let y = "interruptions per viewer-hour";
    chart("interruptions", y, lines.collect(), Some(bound))
}

/// Interruptions per viewer-hour of each span.
fn rates(series: &[Sample]) -> Vec<(f64, f64)> {
    let span = (series.len() / SPANS).max(1);
    let pairs = series.iter().zip(series.iter().skip(span)).step_by(span);
    let rate = |(from, to): (&Sample, &Sample)| {
        let hours = f64::from(to.viewers) * (to.seconds - from.seconds) / 3600.0;
        let count = to.interruptions - from.interruptions;
        (to.seconds, count / f64::max(hours, 1e-9))
    };
    pairs.map(rate).collect()
}

fn latency(first: &Report, reports: &[Report]) -> Chart {
    let percent = |points: &[(f64, f64)]| -> Vec<_> {
        points
            .iter()
            .map(|(latency, part)| (*latency, 100.0 * part))
            .collect()
    };
    let lines = reports.iter().map(|report| Line {
        name: report.policy.clone(),
        points: percent(&report.latency.cdf),
        bound: false,
    });
    let bound = Line {
        name: "formula".to_owned(),
        points: percent(&first.latency.least_cdf),
        bound: true,
    };
    Chart {
        file: "latency",
        title: format!(
            "{}, {} viewers: latency behind the CDN",
            first.scenario, first.peers
        ),
        x: "milliseconds",
        y: "% of the viewers",
        lines: lines.chain([bound]).collect(),
        rises: true,
        ..Chart::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::{PlannerRun, Scenario, Subject};

    #[test]
    fn every_chart_is_written_twice_and_is_not_empty() {
        let mut scenario = Scenario::load("steady").unwrap().with_peers(200);
        (
            scenario.seconds,
            scenario.warm_seconds,
            scenario.past_seconds,
        ) = (60, 10, 2_000);
        let run = PlannerRun {
            scenario,
            seed: 1,
            subject: Subject::Planner,
            check_every: None,
            replay_from_snapshot: false,
        };
        let report = run.play(|_| {}).unwrap();
        let to = tempfile::tempdir().unwrap();
        draw(&[report], to.path()).unwrap();
        for chart in ["depth", "roots", "offload", "interruptions", "latency"] {
            let svg = to.path().join(format!("steady-{chart}.svg"));
            let svg = std::fs::read_to_string(svg).unwrap();
            assert!(
                svg.contains("polyline") && svg.contains("planner"),
                "{chart}"
            );
            let file = std::fs::File::open(to.path().join(format!("steady-{chart}.png"))).unwrap();
            let mut reader = png::Decoder::new(std::io::BufReader::new(file))
                .read_info()
                .unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            assert!(
                pixels.iter().filter(|byte| **byte < 200).count() > 1_000,
                "{chart}"
            );
        }
    }
}
