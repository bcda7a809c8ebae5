//! Snapshot files: durable or not there, checked as they are read.

mod common;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use espalier_raft_store::snapshot::{Description, MemorySnapshots, SnapshotFiles, Snapshots};

fn description(group: u64, covers: u64) -> Description {
    Description {
        group,
        covers,
        meta: format!("meta of {group} at {covers}").into_bytes(),
    }
}

fn body(length: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(length).collect()
}

fn write<S: Snapshots>(snapshots: &S, group: u64, covers: u64, bytes: &[u8]) {
    let mut writer = snapshots.begin(description(group, covers)).expect("begun");
    // In uneven pieces, as a serializer writes.
    for piece in bytes.chunks(10_007) {
        writer.write_all(piece).expect("written");
    }
    snapshots.finish(writer).expect("finished");
}

/// What it covers, its meta, its body.
type Found = (u64, Vec<u8>, Vec<u8>);

fn read<S: Snapshots>(snapshots: &S, group: u64) -> io::Result<Option<Found>> {
    let Some(mut snapshot) = snapshots.latest(group)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    snapshot.body.read_to_end(&mut bytes)?;
    assert_eq!(bytes.len() as u64, snapshot.length);
    Ok(Some((snapshot.covers, snapshot.meta, bytes)))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .collect()
}

fn open(dir: &Path) -> SnapshotFiles {
    SnapshotFiles::open(dir, 0).expect("opened")
}

fn behaves<S: Snapshots>(snapshots: &S) {
    assert!(read(snapshots, 1).expect("readable").is_none());
    for (covers, length) in (1..).zip([0, 1, 65_535, 65_536, 65_537, 131_072, 300_000]) {
        write(snapshots, 1, covers, &body(length));
        let meta = description(1, covers).meta;
        let found = read(snapshots, 1).expect("readable");
        assert_eq!(found, Some((covers, meta, body(length))), "{length} bytes");
    }
    write(snapshots, 2, 5, b"another group's");
    assert_eq!(
        read(snapshots, 2).expect("readable").expect("there").2,
        b"another group's"
    );

    let mut unfinished = snapshots.begin(description(1, 99)).expect("begun");
    unfinished.write_all(b"never finished").expect("written");
    drop(unfinished);
    let mut snapshot = snapshots.latest(1).expect("readable").expect("there");
    assert_eq!(snapshot.covers, 7);
    for at in [0, 1, 65_535, 65_536, 200_000, 299_999] {
        snapshot.body.seek(SeekFrom::Start(at)).expect("sought");
        let mut byte = [0];
        snapshot.body.read_exact(&mut byte).expect("read");
        assert_eq!(
            byte[0],
            body(300_000)[usize::try_from(at).expect("small")],
            "at {at}"
        );
    }
    assert_eq!(
        snapshot.body.seek(SeekFrom::End(-5)).expect("sought"),
        299_995
    );
}

#[test]
fn files_and_memory_behave_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    behaves(&open(dir.path()));
    behaves(&MemorySnapshots::default());
}

#[test]
fn the_latest_outlives_a_restart_and_older_ones_and_unfinished_ones_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshots = open(dir.path());
    write(&snapshots, 1, 10, &body(100_000));
    let old = snapshots.latest(1).expect("readable").expect("there");
    write(&snapshots, 1, 20, &body(5));
    assert_eq!(files(dir.path()).len(), 1, "the older one is gone");
    let mut bytes = Vec::new();
    let mut reader = old.body;
    reader
        .read_to_end(&mut bytes)
        .expect("whoever reads the older one reads on");
    assert_eq!(bytes, body(100_000));

    let kept = files(dir.path()).remove(0);
    fs::copy(
        &kept,
        dir.path()
            .join("0000000000000001-0000000000000001.snapshot"),
    )
    .expect("copied");
    let left = "0000000000000001-00000000000000ff.unfinished";
    fs::write(dir.path().join(left), b"half").expect("written");
    let again = open(dir.path());
    assert_eq!(files(dir.path()), [kept]);
    assert_eq!(read(&again, 1).expect("readable").expect("there").0, 20);
    write(&again, 1, 30, b"numbers go on");
    assert_eq!(
        read(&open(dir.path()), 1)
            .expect("readable")
            .expect("there")
            .0,
        30
    );
}

#[test]
fn every_damage_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    for length in [0, 10, 65_536, 150_000] {
        let snapshots = open(dir.path());
        write(&snapshots, 1, 10, &body(length));
        let path = snapshots.latest_path(1).expect("there");
        let good = fs::read(&path).expect("readable");
        let places = (0..good.len()).step_by((good.len() / 60).max(1));
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).expect("written");
            let error = read(&snapshots, 1).expect_err("a flipped bit");
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidData,
                "bit at {at} of {length}"
            );
            fs::write(&path, &good[..at]).expect("written");
            assert!(read(&snapshots, 1).is_err(), "cut to {at} of {length}");
        }
        // The whole last block gone, and one block too many.
        fs::write(&path, &good[..good.len().saturating_sub(65_544)]).expect("written");
        assert!(read(&snapshots, 1).is_err());
        let longer = [good.as_slice(), &[0; 65_544]].concat();
        fs::write(&path, longer).expect("written");
        assert!(read(&snapshots, 1).is_err());
    }
}

#[test]
fn another_groups_file_is_no_snapshot_of_this_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshots = open(dir.path());
    write(&snapshots, 1, 10, b"one");
    let path = snapshots.latest_path(1).expect("there");
    fs::rename(
        path,
        dir.path()
            .join("0000000000000002-0000000000000005.snapshot"),
    )
    .expect("moved");
    assert!(read(&open(dir.path()), 2).is_err());
}

#[test]
fn a_snapshot_leaves_the_log_its_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshots = SnapshotFiles::open(dir.path(), u64::MAX / 2).expect("opened");
    let mut writer = snapshots.begin(description(1, 1)).expect("begun");
    let error = writer.write_all(b"x").expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    drop(writer);
    assert!(files(dir.path()).is_empty(), "nothing is left of it");
}
