//! The real program against a cluster of real nodes, with certificates that it made.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use espalier_proto::cluster::v1 as wire;
use espalier_proto::cluster::v1::raft_service_client::RaftServiceClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, killed when it is dropped.
struct Node {
    child: Child,
    public: u16,
    between: u16,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A directory with a cluster's key, token and certificates, made by the program.
struct Cluster {
    dir: tempfile::TempDir,
    /// Where the first nodes are for each other.
    founders: Vec<u16>,
}

/// A port that the system gives to no outgoing connection, and that nobody uses.
fn free_port() -> u16 {
    let begin = std::process::id() as usize * 31;
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    loop {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = u16::try_from(10_000 + (begin + step * 7) % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn espalier(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    command.args(words).env_remove("ESPALIER_LOG");
    command.env_remove("ESPALIER_CA");
    command
}

/// The node's program lies beside the command, as it does where both are installed.
fn orchestrator() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_espalier")).with_file_name("espalier-orchestrator");
    assert!(
        program.is_file(),
        "{} is missing: cargo build --release -p espalier-orchestrator",
        program.display()
    );
    program
}

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let secrets = secrets.to_str().unwrap();
        ok(&mut espalier(&["cluster", "init", "--dir", secrets]));
        let certs = ["cluster", "certs", "--dir", secrets];
        let nodes = ["1=127.0.0.1", "2=127.0.0.1", "3=127.0.0.1", "4=127.0.0.1"];
        let nodes = nodes.iter().flat_map(|node| ["--node", node]);
        ok(&mut espalier(
            &certs.into_iter().chain(nodes).collect::<Vec<_>>(),
        ));
        // One that names another host.
        ok(&mut espalier(
            &[&certs[..], &["--node", "5=node-5.example"]].concat(),
        ));
        let founders = (0..3).map(|_| free_port()).collect();
        Self { dir, founders }
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.dir.path().join("secrets").join(name)
    }

    fn token(&self) -> String {
        let token = fs::read_to_string(self.secret("admin.token")).unwrap();
        token.trim().to_owned()
    }

    /// Starts a node with the certificate of that number, from that directory; `between`: where the others
    /// reach it.
    fn start(&self, between: u16, secrets: &str, certificate: u32, founds: bool) -> Node {
        let (public, admin) = (free_port(), free_port());
        let list: Vec<String> = self
            .founders
            .iter()
            .map(|port| format!("\"127.0.0.1:{port}\""))
            .collect();
        let bootstrap = match founds {
            true => format!("bootstrap = [{}]\n", list.join(", ")),
            false => String::new(),
        };
        let tls = match secrets {
            "" => "between_nodes = \"plain\"\n".to_owned(),
            dir => format!(
                "[cluster.tls]\nauthority = \"{dir}/ca.pem\"\ncertificate = \"{dir}/node-{certificate}.pem\"\n\
                 key = \"{dir}/node-{certificate}.key\"\n"
            ),
        };
        let text = format!(
            "data_dir = \"data-{public}\"\nlisten = \"127.0.0.1:{public}\"\nadmin_listen = \"127.0.0.1:{admin}\"\n\
             [cluster]\nkey_file = \"secrets/cluster.key\"\nlisten = \"127.0.0.1:{between}\"\n\
             advertise = \"127.0.0.1:{between}\"\npublic_uri = \"http://127.0.0.1:{public}\"\n{bootstrap}{tls}"
        );
        let config = self.dir.path().join(format!("node-{public}.toml"));
        fs::write(&config, text).unwrap();
        let mut command = Command::new(orchestrator());
        command.arg("--config").arg(&config).stdout(Stdio::null());
        Node {
            child: command.spawn().unwrap(),
            public,
            between,
        }
    }

    /// Runs the command against a node.
    fn run(&self, at: &Node, words: &[&str]) -> Output {
        let mut command = espalier(&[&["cluster"], words].concat());
        command.env(
            "ESPALIER_ENDPOINT",
            format!("http://127.0.0.1:{}", at.public),
        );
        command.env("ESPALIER_TOKEN", self.token());
        command.output().unwrap()
    }

    /// What the command says as JSON.
    fn json(&self, at: &Node, words: &[&str]) -> Value {
        let output = self.run(at, &[words, &["--format", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks for the status until it is as wanted.
    fn until(&self, at: &Node, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.run(at, &["status", "--format", "json"]);
            if let Ok(status) = serde_json::from_slice::<Value>(&output.stdout)
                && wanted(&status)
            {
                return status;
            }
            assert!(Instant::now() < deadline, "waited in vain: {output:?}");
        }
    }

    /// A call to a node's listener for nodes, with these credentials; its status, if there is any.
    async fn call(&self, node: &Node, tls: Option<ClientTlsConfig>) -> Result<Code, String> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://127.0.0.1:{}", node.between);
        let endpoint = Endpoint::from_shared(uri)
            .unwrap()
            .connect_timeout(PATIENCE);
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls).unwrap(),
            None => endpoint,
        };
        let line = endpoint
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let mut client = RaftServiceClient::new(line);
        let presence = client.presence(wire::PresenceRequest::default());
        let status = presence.await.map(drop).unwrap_err();
        // A connection that breaks has a status too, but none that the service gave.
        match std::error::Error::source(&status) {
            None => Ok(status.code()),
            Some(source) => Err(source.to_string()),
        }
    }

    fn credentials(&self, secrets: &str, node: u32) -> ClientTlsConfig {
        let read =
            |dir: &str, name: String| fs::read(self.dir.path().join(dir).join(name)).unwrap();
        // The node's own certificate is good in any case: what counts is what is shown to it.
        let authority = Certificate::from_pem(read("secrets", "ca.pem".to_owned()));
        let identity = Identity::from_pem(
            read(secrets, format!("node-{node}.pem")),
            read(secrets, format!("node-{node}.key")),
        );
        ClientTlsConfig::new()
            .ca_certificate(authority)
            .identity(identity)
    }
}

fn all(status: &Value, nodes: &[u64], wanted: impl Fn(&Value) -> bool) -> bool {
    let shown = status["nodes"].as_array().unwrap();
    let ids: Vec<_> = shown
        .iter()
        .map(|node| node["node"].as_u64().unwrap())
        .collect();
    ids == nodes && shown.iter().all(wanted)
}

fn in_service(node: &Value) -> bool {
    node["state"] == "active" && node["reachable"] == true
}

fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn a_cluster_is_made_looked_at_changed_and_closed_to_strangers() {
    let cluster = Cluster::new();
    let founders = (1..).zip(cluster.founders.clone());
    let mut nodes: Vec<Node> = founders
        .map(|(number, between)| cluster.start(between, "secrets", number, true))
        .collect();
    let status = cluster.until(&nodes[0], |it| all(it, &[1, 2, 3], in_service));
    assert_eq!(status["shards"].as_array().unwrap().len(), 17);
    let text = cluster.run(&nodes[1], &["status"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("\nNODE  STATE ") && text.contains("\nmeta   "),
        "{text}"
    );

    // Where it leads from, and back.
    let moved = cluster.json(&nodes[2], &["transfer", "3", "--to", "2"]);
    assert_eq!(
        (&moved["shard"], &moved["leader"]),
        (&"3".into(), &2.into())
    );
    assert_fails(
        &cluster.run(&nodes[0], &["transfer", "3", "--to", "9"]),
        1,
        &[
            "shard 3 was not moved to node 9",
            "no node 9",
            "espalier cluster status",
        ],
    );
    let drained = cluster.json(&nodes[0], &["drain", "2", "--wait"]);
    assert_eq!(
        (&drained["state"], &drained["leads"]),
        (&"draining".into(), &0.into())
    );
    assert_fails(
        &cluster.run(&nodes[0], &["transfer", "3", "--to", "2"]),
        1,
        &["cannot lead", "choose another node"],
    );
    let back = cluster.json(&nodes[1], &["drain", "2", "--undo"]);
    assert_eq!(back["state"], "active");

    // A node is let in by the cluster's authority alone, and found by the host that its certificate names.
    let other = cluster.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(cluster.secret("cluster.key"), other.join("cluster.key")).unwrap();
    let made = [
        "cluster",
        "certs",
        "--dir",
        other.to_str().unwrap(),
        "--node",
        "4=127.0.0.1",
    ];
    ok(&mut espalier(&made));
    let between = free_port();
    let address = format!("127.0.0.1:{between}");
    for (secrets, certificate) in [("other", 4), ("", 0), ("secrets", 5)] {
        let stranger = cluster.start(between, secrets, certificate, false);
        listens(between);
        let refused = cluster.run(&nodes[0], &["add", &address]);
        assert_fails(&refused, 69, &[&address, "was not added", "certificate"]);
        drop(stranger);
    }
    let fourth = cluster.start(between, "secrets", 4, false);
    listens(between);
    let added = cluster.json(&nodes[0], &["add", &address, "--wait"]);
    assert_eq!(
        (&added["node"], &added["state"]),
        (&4.into(), &"active".into())
    );
    for (secrets, node) in [("secrets", 1), ("other", 4)] {
        let called = cluster
            .call(&fourth, Some(cluster.credentials(secrets, node)))
            .await;
        // The service answers whom it hears.
        assert_eq!(
            called == Ok(Code::InvalidArgument),
            secrets == "secrets",
            "{called:?}"
        );
    }
    assert!(cluster.call(&fourth, None).await.is_err());
    assert_fails(
        &cluster.run(&fourth, &["add", &address]),
        1,
        &["is node 4's address already", "espalier cluster remove"],
    );
    assert_fails(
        &cluster.run(&fourth, &["add", "nowhere"]),
        64,
        &["cluster_address"],
    );

    // One for good: its process ends by itself.
    assert_fails(
        &cluster.run(&fourth, &["remove", "9"]),
        1,
        &["node 9 was not removed", "there is no node 9"],
    );
    let removed = cluster.json(&fourth, &["remove", "3", "--wait"]);
    assert_eq!(removed["node"], 3);
    cluster.until(&fourth, |it| all(it, &[1, 2, 4], in_service));
    let code = nodes.pop().unwrap().child.wait().unwrap().code();
    assert_eq!(code, Some(64));

    // Without a majority it is said so, and what one node knows can still be seen.
    let first = nodes.remove(0);
    for node in [&nodes[0], &first] {
        let pid = Pid::from_raw(i32::try_from(node.child.id()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
    }
    drop((nodes, first));
    let refused = cluster.run(&fourth, &["status"]);
    assert_fails(
        &refused,
        69,
        &["no majority", "try again in", "status --local"],
    );
    let local = cluster.json(&fourth, &["status", "--local"]);
    assert_eq!(local["answered_by"], 4);
}

/// Waits until somebody listens.
fn listens(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
