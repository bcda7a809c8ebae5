//! The programs as scripts use them: exit codes, and a demo that leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::binaries::{binary, tool};
use espalier_e2e::scene::{CHANNEL, Setup, free_address};
use espalier_e2e::wait::{observe_for, wait_until};
use espalier_e2e::{Cli, Process, Scene};
use nix::sys::signal::Signal;

/// Longer than any program takes to give up.
const PATIENCE: Duration = Duration::from_secs(40);

/// Marks the environment of everything that a demo starts.
const MARK: &str = "ESPALIER_E2E_MARK";

#[test]
fn exit_codes_are_what_scripts_expect() -> Result<()> {
    Scene::play("exit_codes", Setup::default(), |scene| {
        let nobody = format!("http://{}", free_address("127.0.0.1")?);
        let stranger = Cli::new(&nobody, "token")?;
        let intruder = Cli::new(&scene.nodes[0].endpoint, "not-a-token")?;
        let check = |cli: &Cli, line: &str, expect: i32| -> Result<()> {
            let outcome = cli.run(line.split_whitespace())?;
            ensure!(
                outcome.code == Some(expect),
                "espalier {line}: {outcome:?}, not {expect}"
            );
            ensure!(
                expect == 0 || !outcome.stderr.is_empty(),
                "espalier {line} does not say why"
            );
            Ok(())
        };
        for line in [
            "--help",
            "--version",
            "channel --help",
            "channel list",
            "channel get live",
            "channel tree live",
            "channel tree live --format dot",
            "channel check live",
            "channel list --format json",
            "token issue --channel live --ttl 60s",
        ] {
            check(&scene.cli, line, 0)?;
        }
        for line in [
            "channel get nothing",
            "channel delete nothing",
            "channel tree nothing",
            "channel create live --origin http://127.0.0.1:1/other.m3u8",
        ] {
            check(&scene.cli, line, 1)?;
        }
        for line in [
            "",
            "frobnicate",
            "channel create Bad_Name --origin http://127.0.0.1/a.m3u8",
            "channel create good",
            "token issue --channel live --ttl soon",
            "demo --peers none",
        ] {
            check(&scene.cli, line, 64)?;
        }
        check(&stranger, "channel list", 69)?;
        check(&stranger, "channel check live", 69)?;
        check(&intruder, "channel list", 1)?;

        let invitation = scene.invitation().clone();
        let peer = |endpoint: &str, channel: &str, token: &str| {
            format!(
                "espalier-peer play --orchestrator {endpoint} --channel {channel} --token {token} \
                 --listen 127.0.0.1:0"
            )
        };
        let address = free_address("127.0.0.1")?;
        let table = [
            ("espalier-peer --help".to_owned(), 0),
            ("espalier-peer play".to_owned(), 64),
            ("espalier-peer play --upload much".to_owned(), 64),
            (peer(&invitation.endpoints[0], CHANNEL, "forged"), 1),
            (
                peer(&invitation.endpoints[0], "nothing", &invitation.token),
                1,
            ),
            (peer(&nobody, CHANNEL, &invitation.token), 69),
            ("espalier-orchestrator --help".to_owned(), 0),
            ("espalier-orchestrator".to_owned(), 64),
            (
                "espalier-orchestrator --config /nonexistent/node.toml".to_owned(),
                64,
            ),
            ("espalier-signer --help".to_owned(), 0),
            ("espalier-signer".to_owned(), 64),
            (
                format!("espalier-signer --origin nonsense --key k --listen {address}"),
                64,
            ),
        ];
        for (line, expect) in table {
            expect_exit(&line, expect, scene.directory())?;
        }
        Ok(())
    })
}

fn expect_exit(line: &str, expect: i32, directory: &Path) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("a program")?;
    let mut process = Process::start("exit-code", &binary(program)?, words, directory)?;
    let status = process
        .wait_for_end(PATIENCE)
        .with_context(|| line.to_owned())?;
    let log = process.log();
    ensure!(
        status.code() == Some(expect),
        "{line}: {status}, not {expect}\n{log}"
    );
    Ok(())
}

#[test]
fn the_demo_forms_a_tree_and_leaves_nothing_behind() -> Result<()> {
    let scene = tempfile::tempdir()?;
    let report = scene.path().join("report.json");
    let arguments = [
        "--headless",
        "--duration",
        "40s",
        "--report",
        &report.display().to_string(),
    ]
    .map(str::to_owned);
    let mut demo = start_demo("whole", &arguments, scene.path())?;
    let status = demo.wait_for_end(Duration::from_secs(150))?;
    ensure!(
        status.success(),
        "the demo ended with {status}:\n{}",
        demo.log()
    );
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report)?)?;
    let mut figures = espalier_e2e::Figures::new("demo");
    figures.record("report", &report)?;
    let number = |key: &str| {
        report
            .get(key)
            .and_then(serde_json::Value::as_f64)
            .with_context(|| format!("{key} in {report}"))
    };
    ensure!(number("peers")? >= 12.0, "{report}");
    ensure!(number("max_depth")? >= 4.0, "{report}");
    ensure!(number("offload")? > 0.5, "{report}");
    expect_nothing_left("whole", scene.path())
}

#[test]
fn a_demo_of_three_nodes_shows_whom_to_kill_and_survives_it() -> Result<()> {
    let scene = tempfile::tempdir()?;
    let report = scene.path().join("report.json");
    let words = [
        "--headless",
        "--nodes",
        "3",
        "--duration",
        "45s",
        "--report",
    ];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.push(report.display().to_string());
    let mut demo = start_demo("cluster", &arguments, scene.path())?;
    let said = |demo: &Process| format!("{}{}", demo.output(), demo.log());
    let owner = wait_until(
        "the demo says whom to kill",
        Duration::from_secs(60),
        || {
            let said = said(&demo);
            let pid = said.split_once("kill the channel's owner: kill -9 ");
            let pid = pid.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            Ok(pid)
        },
    )
    .with_context(|| said(&demo))?;
    // The gaps are counted from ten seconds after the tree has formed.
    observe_for(Duration::from_secs(12));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(owner), Signal::SIGKILL)?;
    for words in [
        format!("(pid {owner}) has ended"),
        "owns the channel now".to_owned(),
    ] {
        wait_until(&words, Duration::from_secs(20), || {
            Ok(said(&demo).contains(&words).then_some(()))
        })
        .with_context(|| said(&demo))?;
    }
    let status = demo.wait_for_end(Duration::from_secs(90))?;
    ensure!(
        status.success(),
        "the demo ended with {status}:\n{}",
        said(&demo)
    );
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report)?)?;
    espalier_e2e::Figures::new("demo_cluster").record("report", &report)?;
    let number = |key: &str| report.get(key).and_then(serde_json::Value::as_u64);
    ensure!(number("nodes") == Some(3), "{report}");
    ensure!(number("failovers").is_some_and(|it| it > 0), "{report}");
    ensure!(number("stalls") == Some(0), "{report}");
    ensure!(number("longest_gap_ms").is_some(), "{report}");
    expect_nothing_left("cluster", scene.path())
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() -> Result<()> {
    let scene = tempfile::tempdir()?;
    for (name, signal) in [("terminated", Signal::SIGTERM), ("killed", Signal::SIGKILL)] {
        let mut demo = start_demo(name, &["--headless".to_owned()], scene.path())?;
        wait_until(
            "the demo has started its peers",
            Duration::from_secs(60),
            || Ok((marked(name)?.len() > 8).then_some(())),
        )
        .with_context(|| demo.log())?;
        if signal == Signal::SIGTERM {
            // Only the demo itself is told; it sees to its children.
            let id = i32::try_from(demo.id())?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal)?;
            let status = demo.wait_for_end(Duration::from_secs(15))?;
            // It may say that no tree had formed yet; what matters is that it ended by itself.
            ensure!(status.code().is_some(), "{status}:\n{}", demo.log());
            expect_nothing_left(name, scene.path())?;
        } else {
            let id = i32::try_from(demo.id())?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal)?;
            demo.wait_for_end(Duration::from_secs(15))?;
            expect_no_process_left(name)?;
        }
    }
    Ok(())
}

/// Starts a demo whose temporary files have a place of their own, and whose processes are marked.
fn start_demo(name: &str, arguments: &[String], directory: &Path) -> Result<Process> {
    fs::create_dir_all(temporary(name, directory))?;
    let mut command = Command::new(tool("setpriv")?);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(binary("espalier")?)
        .arg("demo")
        .args(arguments);
    command
        .env("TMPDIR", temporary(name, directory))
        .env(MARK, mark(name));
    Process::spawn(&format!("demo-{name}"), command, directory, Stdio::null())
}

fn temporary(name: &str, directory: &Path) -> std::path::PathBuf {
    directory.join(format!("temporary-{name}"))
}

fn mark(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// The processes whose environment bears the mark; without zombies, which have none.
fn marked(name: &str) -> Result<Vec<String>> {
    let wanted = format!("{MARK}={}", mark(name)).into_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        // Processes come and go, and other users' are closed to us: neither is marked.
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted)
        {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    Ok(found)
}

fn expect_no_process_left(name: &str) -> Result<()> {
    let mut last = Vec::new();
    wait_until("no process is left", Duration::from_secs(10), || {
        last = marked(name)?;
        Ok(last.is_empty().then_some(()))
    })
    .with_context(|| format!("left: {last:?}"))
}

fn expect_nothing_left(name: &str, directory: &Path) -> Result<()> {
    expect_no_process_left(name)?;
    let left: Vec<_> = fs::read_dir(temporary(name, directory))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    ensure!(left.is_empty(), "files are left: {left:?}");
    Ok(())
}
