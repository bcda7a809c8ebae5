//! The command-line contract, with the real program.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn espalier() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    for name in [
        "ESPALIER_ENDPOINT",
        "ESPALIER_TOKEN",
        "ESPALIER_LOG",
        "ESPALIER_CA",
    ] {
        command.env_remove(name);
    }
    command
}

fn run(line: &str) -> Output {
    espalier().args(line.split_whitespace()).output().unwrap()
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn help_and_version_end_with_0_and_every_help_has_examples() {
    assert_eq!(run("--version").status.code(), Some(0));
    let table = [
        "",
        "channel create",
        "channel list",
        "channel get",
        "channel delete",
        "channel tree",
        "channel watch",
        "channel check",
        "token issue",
        "cluster init",
        "cluster certs",
        "cluster status",
        "cluster add",
        "cluster remove",
        "cluster transfer",
        "cluster drain",
        "demo",
    ];
    for command in table {
        let output = run(&format!("{command} --help"));
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:\n  espalier "), "{command}: {help}");
        assert!(help.contains("--log-format"), "{command}");
    }
}

#[test]
fn bad_usage_ends_with_64() {
    let table = [
        "",
        "chanel list",
        "channel create news",
        "channel create NEWS --origin http://127.0.0.1/",
        "channel create news --origin nonsense",
        "channel create news --origin http://127.0.0.1/ --policy /no/such/file",
        "channel list --endpoint 127.0.0.1:7300",
        "channel list --log-level a=b=c",
        "token issue --channel news --ttl 1",
        "token issue --channel news --ttl 1h --key /no/such/file",
        "demo --duration soon",
    ];
    for line in table {
        let output = run(line);
        assert_eq!(output.status.code(), Some(64), "{line}: {output:?}");
        assert!(output.stdout.is_empty(), "{line}: {output:?}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn an_orchestrator_that_is_not_there_ends_with_69() {
    let table = [
        "channel create news --origin http://127.0.0.1/",
        "channel list",
        "channel get news",
        "channel delete news",
        "channel tree news",
        "channel watch news",
        "channel check news",
        "token issue --channel news --ttl 1h",
    ];
    let nowhere = nowhere();
    for line in table {
        let output = espalier()
            .args(line.split_whitespace())
            .env("ESPALIER_ENDPOINT", &nowhere)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(69), "{line}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&nowhere) && text.contains("next: "), "{text}");
    }
}

#[test]
fn failures_are_json_when_logs_are() {
    let output = run(&format!(
        "--log-format json channel list --endpoint {}",
        nowhere()
    ));
    let text = String::from_utf8(output.stderr).unwrap();
    let failure: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(failure["exit_code"], 69);
}

#[test]
fn a_token_signed_here_is_printed_alone_and_admits_to_its_channel() {
    /// RFC 8410, section 10.3: an Ed25519 private key that is everyone's.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("issuer.pem");
    std::fs::write(&key, KEY).unwrap();
    let output = run(&format!(
        "token issue --channel news --ttl 1h --key {}",
        key.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let token = text.strip_suffix('\n').unwrap();
    assert!(!token.contains(char::is_whitespace), "{text:?}");
    let keys = [espalier_token::VerifierKey::from_pem(PUBLIC.as_bytes()).unwrap()];
    assert_eq!(
        espalier_token::verify(&keys, token).unwrap().channel,
        "news"
    );
}

#[test]
fn a_supervised_program_dies_with_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let id_file = directory.path().join("id");
    // The shell is the parent that is killed; what it supervises would sleep for ten minutes.
    let script = format!(
        "'{}' supervise --parent=$$ -- /bin/sh -c 'echo $$ > \"{}\"; exec sleep 600' & wait",
        env!("CARGO_BIN_EXE_espalier"),
        id_file.display()
    );
    let mut parent = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let child = Pid::from_raw(wait_for(|| read_id(&id_file)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for(|| has_ended(child).then_some(()));
}

#[test]
fn a_supervised_program_whose_parent_is_gone_does_not_start() {
    let output = espalier()
        .args(["supervise", "--parent=1999999999", "--", "/bin/true"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = espalier()
        .args(["demo", "--headless", "--stream", "sample", "--peers", "1"])
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its directory may come and go before this looks: then it ended for want of the other programs,
    // which must leave nothing behind either.
    wait_for(|| {
        let ended = demo.try_wait().unwrap().is_some();
        let begun = std::fs::read_dir(directory.path())
            .unwrap()
            .next()
            .is_some();
        (ended || begun).then_some(())
    });
    if demo.try_wait().unwrap().is_none() {
        kill(
            Pid::from_raw(i32::try_from(demo.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
    }
    let ended = wait_for(|| demo.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

fn read_id(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A zombie, whose parent is gone too and whose new one may be slow to look, has ended.
fn has_ended(id: Pid) -> bool {
    match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}

fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "the condition never came true");
        std::thread::sleep(Duration::from_millis(10));
    }
}
