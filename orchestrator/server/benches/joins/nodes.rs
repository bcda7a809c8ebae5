//! Three nodes as three processes.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use espalier_token::ClusterKey;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::support::viewer_token;

// Made for tests alone; they hold until 2126.
const CA: &str = include_str!("../../tests/keys/ca.pem");
const CERTIFICATE: &str = include_str!("../../tests/keys/server.pem");
const KEY: &str = include_str!("../../tests/keys/server.key");

pub(crate) struct Cluster {
    children: Vec<Child>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// A viewer's token for the channel.
    pub(crate) viewer: MetadataValue<Ascii>,
}

impl Cluster {
    /// Starts them, with TLS for peers or without.
    pub(crate) async fn start(dir: &Path, tls: bool) -> anyhow::Result<Self> {
        let (key, token) = ClusterKey::generate();
        std::fs::write(dir.join("cluster.key"), key.to_text())?;
        let between = addresses(3)?;
        let (public, admin) = (addresses(3)?, addresses(3)?);
        let list: Vec<_> = between.iter().map(|it| format!("\"{it}\"")).collect();
        std::fs::write(dir.join("server.pem"), CERTIFICATE)?;
        std::fs::write(dir.join("server.key"), KEY)?;
        let section = if tls {
            "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
        } else {
            ""
        };
        let endpoints: anyhow::Result<_> = public.iter().map(|it| endpoint(*it, tls)).collect();
        // Whatever comes, its processes end with it.
        let mut cluster = Self {
            children: Vec::new(),
            endpoints: endpoints?,
            viewer: MetadataValue::from_static(""),
        };
        for (number, own) in between.iter().enumerate() {
            let (public, admin) = (public[number], admin[number]);
            let text = format!(
                "data_dir = \"node-{number}\"\nlisten = \"{public}\"\nadmin_listen = \"{admin}\"\n\
                 [limits]\ncalls_per_second_per_address = 100000\nmax_concurrent_calls = 60000\n\
                 messages_per_second_per_session = 10000\n{section}\
                 [cluster]\nkey_file = \"cluster.key\"\nlisten = \"{own}\"\nadvertise = \"{own}\"\n\
                 public_uri = \"http://{public}\"\nbetween_nodes = \"plain\"\nbootstrap = [{}]\n",
                list.join(", ")
            );
            let config = dir.join(format!("node-{number}.toml"));
            std::fs::write(&config, text)?;
            let child = Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"))
                .arg("--config")
                .arg(&config)
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            cluster.children.push(child);
        }
        for child in &mut cluster.children {
            let mut line = String::new();
            let out = child.stdout.take().context("the node has an output")?;
            BufReader::new(out).read_line(&mut line)?;
            ensure!(
                line.starts_with("ESPALIER_ENDPOINT="),
                "a node did not start"
            );
        }
        let viewer = viewer_token(&cluster.endpoints, &token).await?;
        cluster.viewer = format!("Bearer {viewer}").parse()?;
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}

fn endpoint(at: SocketAddr, tls: bool) -> anyhow::Result<Endpoint> {
    if !tls {
        return Ok(Endpoint::from_shared(format!("http://{at}"))?);
    }
    let authority = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(CA))
        .domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://{at}"))?.tls_config(authority)?)
}

/// Addresses that nobody uses now.
pub(crate) fn addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners: Result<Vec<_>, _> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect();
    let addresses: Result<Vec<_>, _> = listeners?.iter().map(TcpListener::local_addr).collect();
    Ok(addresses?)
}
