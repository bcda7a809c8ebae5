//! The binary: exit codes, what it prints, what it leaves behind.

use std::process::{Command, Output};

use crate::restart::Process;
use crate::support::{until, within};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn bad_usage_ends_with_64_and_help_with_0() {
    let table: [(&[&str], i32); 7] = [
        (&[], 64),
        (&["--dev", "--config", "x"], 64),
        (&["--dev", "--listen", "here"], 64),
        (&["--config", "x", "--listen", "127.0.0.1:0"], 64),
        (&["--dev", "--log-format", "xml"], 64),
        (&["--help"], 0),
        (&["--version"], 0),
    ];
    for (arguments, code) in table {
        assert_eq!(run(arguments).status.code(), Some(code), "{arguments:?}");
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("--config"),
        "{help}"
    );
}

#[test]
fn every_mistake_in_a_configuration_is_printed_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(
        &path,
        "listen = 7300\nfoo = 1\n[limits]\nmax_channels = 0\n",
    )
    .unwrap();
    let output = run(&["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    for key in ["data_dir", "listen", "foo", "limits.max_channels"] {
        assert!(
            text.contains(&format!("{key}:")),
            "{key} is missing: {text}"
        );
    }
}

#[test]
fn an_address_that_is_taken_ends_with_1_and_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["--dev", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&address) && text.contains("next:"), "{text}");
}

#[tokio::test]
async fn sigterm_ends_it_with_0_and_temporary_data_is_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let mut process = Process::start_in(temporary.path(), &["--dev", "--listen", "127.0.0.1:0"]);
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        1,
        "its data"
    );
    let id = process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let code = within(tokio::task::spawn_blocking(move || process.wait()))
        .await
        .unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_admin_listener_serves_probes_and_metrics() {
    let admin = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    // The process is killed at the end: what it leaves goes with the test's own directory.
    let temporary = tempfile::tempdir().unwrap();
    let arguments = ["--dev", "--listen", "127.0.0.1:0", "--admin-listen", &admin];
    let _process = Process::start_in(temporary.path(), &arguments);
    let get = |path: &'static str| {
        let admin = admin.clone();
        async move { http_get(&admin, path).await }
    };
    assert!(until(|| get("/ready")).await.starts_with("HTTP/1.1 200"));
    assert!(until(|| get("/live")).await.starts_with("HTTP/1.1 200"));
    let metrics = until(|| get("/metrics")).await;
    assert!(
        metrics.contains("espalier_orchestrator_channels 0"),
        "{metrics}"
    );
}

pub(crate) async fn http_get(address: &str, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
