//! `espalier-signer` as a process.

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use espalier_signer::{RemoteConfig, RemoteSigner};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Live, Origin, Reader, wait_for};

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_espalier-signer"))
}

fn run(args: &[&str]) -> Output {
    command().args(args).output().expect("it runs")
}

/// Ended with the test, whatever happens in it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn start(origin: &str, key: &Path) -> (Running, String) {
    let mut child = command()
        .args([
            "--origin",
            origin,
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--key",
        ])
        .arg(key)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let stdout = child.stdout.take().expect("its output");
    let running = Running(child);
    let line = BufReader::new(stdout)
        .lines()
        .next()
        .expect("a line")
        .expect("text");
    let url = line
        .strip_prefix("ESPALIER_SIGNER=")
        .expect("its address")
        .to_owned();
    (running, url)
}

#[test]
fn wrong_arguments_end_with_64() {
    let table: [&[&str]; 4] = [
        &[],
        &["--origin", "http://127.0.0.1:9/x.m3u8"],
        &[
            "--origin",
            "http://127.0.0.1:9/x.m3u8",
            "--key",
            "k",
            "--listen",
            "nowhere",
        ],
        &["--no-such-flag"],
    ];
    for args in table {
        assert_eq!(run(args).status.code(), Some(64), "{args:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    let key = key.to_str().expect("text");
    let output = run(&[
        "--origin",
        "no-url",
        "--key",
        key,
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn help_has_examples() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.contains("Examples:") && text.contains("ESPALIER_SIGNER="),
        "{text}"
    );
}

#[test]
fn a_key_that_cannot_be_used_ends_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "no key").expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its owner");
    let args = [
        "--origin",
        "http://127.0.0.1:9/x.m3u8",
        "--listen",
        "127.0.0.1:0",
        "--key",
    ];
    let output = command().args(args).arg(&key).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(
        text.contains("holds no key") && text.contains("next:"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_stops_and_goes_on_with_the_same_key_and_epoch() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish(50..53);
    let (mut running, url) = start(&live.url(), &key);
    let info = RemoteSigner::describe(&url, "").await.expect("it answers");
    let mode = std::fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mirror = |url: String| {
        let (keys, origin_uri) = (info.keys.clone(), info.origin_uri.clone());
        RemoteSigner::connect(RemoteConfig {
            endpoint: url,
            channel: String::new(),
            keys,
            origin_uri,
        })
        .expect("a mirror")
    };
    let first = mirror(url);
    Reader::new(&first).until_segment(0, 52).await;
    live.renumber();
    live.publish([0, 1]);
    Reader::new(&first).until_segment(1, 1).await;
    let state = folder.path().join("key.pem.state");
    wait_for("the epoch is stored", || {
        std::fs::read_to_string(&state)
            .ok()
            .filter(|text| text.contains("\"epoch\": 1"))
    })
    .await;
    let pid = Pid::from_raw(i32::try_from(running.0.id()).expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("it runs");
    let ended = wait_for("it ends", || running.0.try_wait().expect("a child")).await;
    assert_eq!(ended.code(), Some(0));

    let (_running, url) = start(&live.url(), &key);
    assert_eq!(
        RemoteSigner::describe(&url, "")
            .await
            .expect("it answers")
            .keys,
        info.keys
    );
    let second = mirror(url);
    Reader::new(&second).until_segment(1, 1).await;
}
