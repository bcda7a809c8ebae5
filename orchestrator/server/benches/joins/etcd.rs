//! Three members of etcd, each put a join.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::nodes::addresses;
use crate::rounds::{Round, Rounds};

/// What a put carries.
const VALUE: [u8; 100] = [7; 100];
/// Connections that all puts share.
const CONNECTIONS: usize = 8;

/// etcd's `PutRequest`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// etcd's `PutResponse`, of which nothing is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.0 {
            // It is not needed any more, whatever it answers.
            let _killed = member.kill();
            let _ended = member.wait();
        }
    }
}

pub(crate) async fn puts(dir: &Path, rounds: &Rounds) -> anyhow::Result<Vec<Round>> {
    let clients = addresses(3)?;
    let _members = start(dir, &clients)?;
    let endpoints: Vec<_> = clients.iter().map(|it| format!("http://{it}")).collect();
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        connections.push(connect(&endpoints[number % endpoints.len()]).await?);
    }
    let operation = |worker: usize| {
        let line = connections[worker % CONNECTIONS].clone();
        async move {
            let begun = Instant::now();
            put(line, &format!("peer/{worker}")).await?;
            Ok(begun.elapsed())
        }
    };
    rounds.run(operation).await
}

fn start(dir: &Path, clients: &[std::net::SocketAddr]) -> anyhow::Result<Members> {
    let between = addresses(3)?;
    let list: Vec<_> = between
        .iter()
        .enumerate()
        .map(|(number, address)| format!("e{number}=http://{address}"))
        .collect();
    let mut members = Members(Vec::new());
    for (number, (between, client)) in between.iter().zip(clients).enumerate() {
        let (between, client) = (format!("http://{between}"), format!("http://{client}"));
        let member = Command::new("etcd")
            .args(["--name", &format!("e{number}"), "--data-dir"])
            .arg(dir.join(format!("etcd-{number}")))
            .args(["--listen-peer-urls", &between])
            .args(["--initial-advertise-peer-urls", &between])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--initial-cluster", &list.join(",")])
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd does not start: install Debian's etcd-server")?;
        members.0.push(member);
    }
    Ok(members)
}

async fn put(line: Channel, key: &str) -> anyhow::Result<()> {
    let mut client = Grpc::new(line);
    client.ready().await?;
    let (key, value) = (key.into(), VALUE.to_vec());
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<Put, Done>::default();
    client
        .unary(Request::new(Put { key, value }), path, codec)
        .await?;
    Ok(())
}

/// Waits until the member answers with the cluster's help.
async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let attempt = async {
            let line = Channel::from_shared(endpoint.to_owned())?.connect().await?;
            put(line.clone(), "ready").await?;
            anyhow::Ok(line)
        };
        match attempt.await {
            Ok(line) => return Ok(line),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
