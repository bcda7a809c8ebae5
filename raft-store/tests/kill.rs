//! kill -9 while writing, a hundred times: nothing that was acknowledged is missing afterwards.
//!
//! The child says on its standard output what it has had acknowledged, and what it is about to take back
//! (truncations and purges), each before it can be seen; the parent kills it at a random moment, opens the
//! store itself and compares.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::options;
use common::witness::{Expected, GROUPS, write_group};
use espalier_raft_store::Store;
use libtest_mimic::{Arguments, Failed, Trial};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const ROUNDS: u64 = 100;
const CHILD: &str = "--write-until-killed";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, child, dir, round] = arguments.as_slice()
        && child == CHILD
    {
        write_until_killed(Path::new(dir), round.parse().expect("a number"));
        return;
    }
    let name = "a_hundred_kills_lose_nothing_acknowledged";
    let trials = vec![Trial::test(name, || {
        a_hundred_kills().map_err(Failed::from)
    })];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("the parent listens");
}

fn write_until_killed(dir: &Path, term: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(dir, &options()).expect("opened after a kill");
        say("open");
        let mut tasks = Vec::new();
        for group in 1..=GROUPS {
            let handle = store.group(group).await.expect("a group");
            tasks.push(tokio::spawn(write_group(
                handle,
                group,
                term,
                u64::MAX,
                say,
            )));
        }
        for task in tasks {
            task.await.expect("writes until killed");
        }
    });
}

fn a_hundred_kills() -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut expected = Expected::default();
    let mut random = SmallRng::seed_from_u64(0x6b69_6c6c);
    for round in 1..=ROUNDS {
        let lines = run_and_kill(dir.path(), round, random.random_range(0..60))?;
        lines.iter().for_each(|line| expected.learn(line));
        runtime
            .block_on(expected.check(dir.path()))
            .map_err(|error| format!("after kill {round}: {error}"))?;
    }
    // Otherwise the test has killed children that had not begun.
    if expected.acknowledged < 10_000 {
        return Err(format!(
            "only {} entries were acknowledged",
            expected.acknowledged
        ));
    }
    eprintln!(
        "{} entries acknowledged, {ROUNDS} kills, none missing",
        expected.acknowledged
    );
    Ok(())
}

/// Runs a child, kills it so long after it has opened the store; returns what it said in whole lines.
fn run_and_kill(dir: &Path, round: u64, after_ms: u64) -> Result<Vec<String>, String> {
    let mut child = Command::new(std::env::current_exe().map_err(|error| error.to_string())?)
        .arg(CHILD)
        .arg(dir)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    let mut deadline: Option<Instant> = None;
    let mut line = String::new();
    while out
        .read_line(&mut line)
        .map_err(|error| error.to_string())?
        > 0
    {
        let whole = line.ends_with('\n');
        lines.extend(whole.then(|| line.trim_end().to_owned()));
        line.clear();
        let deadline =
            *deadline.get_or_insert_with(|| Instant::now() + Duration::from_millis(after_ms));
        if Instant::now() >= deadline {
            // A second kill finds it dead already, which is no error.
            child.kill().map_err(|error| error.to_string())?;
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match std::os::unix::process::ExitStatusExt::signal(&status) {
        Some(9) => Ok(lines),
        _ => Err(format!(
            "the child of round {round} ended by itself: {status}"
        )),
    }
}
