//! The power goes while the store writes: nothing that was acknowledged is missing afterwards.
//!
//! One run of the store is recorded at the C library's boundary; then the power is cut at many moments of it,
//! each time with another choice of what the disk kept of the bytes that were written and not synced. The same
//! with a disk that lies about its syncs must lose something, or this test proves nothing.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod recorder;

use std::path::Path;

use common::options;
use common::witness::{Expected, GROUPS, write_group};
use disk::Disk;
use espalier_raft_store::Store;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use recorder::Event;

const CUTS: u64 = 400;
const LYING_CUTS: u64 = 40;

/// Runs the store three times over one directory, and returns what happened.
fn record(root: &Path) -> Vec<Event> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    recorder::start(root);
    for term in 1..=3 {
        runtime.block_on(async {
            let store = Store::open(root, &options()).expect("opened");
            recorder::note("open");
            let mut tasks = Vec::new();
            for group in 1..=GROUPS {
                let handle = store.group(group).await.expect("a group");
                tasks.push(tokio::spawn(write_group(
                    handle,
                    group,
                    term,
                    12,
                    recorder::note,
                )));
            }
            for task in tasks {
                task.await.expect("written");
            }
            store.close();
        });
    }
    recorder::stop()
}

/// Cuts the power after so many events and looks at what is left.
fn cut(
    events: &[Event],
    lying: Option<fn(&Path) -> bool>,
    seed: u64,
    root: &Path,
) -> Result<usize, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let moment = random.random_range(0..=events.len());
    let mut disk = Disk::new(lying);
    let mut expected = Expected::default();
    for event in &events[..moment] {
        if let Some(line) = disk.play(event) {
            expected.learn(line);
        }
    }
    let image = tempfile::tempdir().map_err(|error| error.to_string())?;
    disk.cut(&mut random, root, image.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(expected.check(image.path()))
        .map_err(|error| format!("power cut {seed}, after event {moment}: {error}"))?;
    Ok(expected.acknowledged)
}

// One test, because the recorder is the program's.
#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let root = tempfile::tempdir().expect("a directory");
    let events = record(root.path());
    let syncs = events
        .iter()
        .filter(|event| matches!(event, Event::Sync { .. }))
        .count();
    assert!(syncs > 100, "the recorder saw {syncs} syncs only");

    let mut acknowledged = 0;
    for seed in 0..CUTS {
        acknowledged += cut(&events, None, seed, root.path()).expect("nothing is lost");
    }
    assert!(
        acknowledged > 1000,
        "entries that could have been lost: {acknowledged}"
    );

    let lies: fn(&Path) -> bool = |path| path.ends_with("log/db");
    let lost = (0..LYING_CUTS).filter(|seed| cut(&events, Some(lies), *seed, root.path()).is_err());
    let lost = lost.count();
    assert!(
        lost > 0,
        "a disk that lies about its syncs was not noticed in {LYING_CUTS} cuts"
    );
    println!(
        "{} events, {syncs} syncs: {CUTS} cuts lost nothing of {acknowledged}",
        events.len()
    );
    println!("with a lying disk {lost} of {LYING_CUTS} cuts lost something");
}
