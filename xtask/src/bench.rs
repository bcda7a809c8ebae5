//! The benchmarks: what each measures and how it is run.

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;
use crate::console::say;
use crate::tools;

struct Bench {
    name: &'static str,
    package: &'static str,
    target: &'static str,
    what: &'static str,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "signer",
        package: "espalier-signer",
        target: "detection",
        what: "how soon a new segment of a regular origin is detected, and for how many requests",
    },
    Bench {
        name: "rebuild",
        package: "espalier-orchestrator-core",
        target: "rebuild",
        what: "a channel of a million peers: entries applied, a snapshot written and read, an owner rebuilt",
    },
    Bench {
        name: "planner",
        package: "espalier-orchestrator-core",
        target: "planner",
        what: "the planner of a million peers: a join, a leave, a region that vanishes, a rebuild",
    },
    Bench {
        name: "joins",
        package: "espalier-orchestrator",
        target: "joins",
        what: "joins that three nodes commit, beside etcd's puts",
    },
    Bench {
        name: "sessions",
        package: "espalier-orchestrator",
        target: "sessions",
        what: "ten thousand sessions on one node, beside a bare tonic server",
    },
    Bench {
        name: "datapath",
        package: "espalier-peer",
        target: "datapath",
        what: "receive once, send to 1, 4 and 8 children, beside the bare webrtc crate",
    },
];

/// Names the benchmarks.
///
/// # Errors
///
/// None; the type is that of the other commands.
pub(crate) fn list() -> Result<()> {
    for bench in BENCHES {
        say(format!(
            "{:<9} {} ({})",
            bench.name,
            bench.what,
            shown(bench)
        ));
    }
    Ok(())
}

/// Runs one benchmark, or all.
///
/// # Errors
///
/// If there is none of that name, a tool cannot be installed, or one fails.
pub(crate) fn run(name: Option<&str>) -> Result<()> {
    let chosen: Vec<&Bench> = BENCHES
        .iter()
        .filter(|bench| name.is_none_or(|name| name == bench.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("there is no such benchmark: {}", names.join(", "));
    }
    tools::set_up()?;
    for bench in chosen {
        say(format!(
            "\n==> {}: {}\n{}",
            bench.name,
            bench.what,
            shown(bench)
        ));
        let status = cargo([
            "bench",
            "--profile=release",
            "--package",
            bench.package,
            "--bench",
            bench.target,
        ])
        .status()
        .context("cargo bench did not run")?;
        ensure!(status.success(), "{} failed: {}", bench.name, shown(bench));
    }
    Ok(())
}

fn shown(bench: &Bench) -> String {
    format!(
        "cargo bench --profile=release --package {} --bench {}",
        bench.package, bench.target
    )
}
