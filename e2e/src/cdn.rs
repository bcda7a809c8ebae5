//! nginx as the CDN, and its access log as the count of what the CDN carried.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;
use serde::Deserialize;

use crate::binaries::tool;
use crate::process::Process;
use crate::wait::wait_until;

/// The name by which a signer's requests are known.
pub const SIGNER: &str = "signer";

/// One answered request.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// When it was answered whole, in milliseconds since the Unix epoch.
    #[serde(rename = "t")]
    pub at_ms: i64,
    /// The `X-Peer-Id` header; empty for a stranger.
    pub peer: String,
    /// The path.
    pub uri: String,
    /// The status code.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    /// The `Range` header.
    pub range: String,
}

impl Request {
    /// Whether it asked for a playlist.
    #[must_use]
    pub fn is_playlist(&self) -> bool {
        self.uri.ends_with(".m3u8")
    }

    /// The file's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.uri.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is media that a peer took.
    #[must_use]
    pub fn is_peer_media(&self) -> bool {
        !self.is_playlist() && self.peer != SIGNER && matches!(self.status, 200 | 206)
    }
}

/// A running nginx.
#[derive(Debug)]
pub struct Cdn {
    address: String,
    access_log: PathBuf,
    process: Process,
}

impl Cdn {
    /// Serves `served` on `address` (`host:port`). `rate` bounds how fast each answer to a peer is
    /// sent, in bytes a second; the signer is never slowed.
    ///
    /// # Errors
    /// nginx is missing or does not start.
    pub fn start(
        directory: &Path,
        served: &Path,
        address: &str,
        rate: Option<u64>,
    ) -> Result<Self> {
        let directory = directory.join("nginx");
        fs::create_dir_all(&directory)?;
        let configuration = directory.join("nginx.conf");
        let access_log = directory.join("access.json");
        fs::write(&configuration, configure(&directory, served, address, rate))?;
        let arguments = [
            "-p".as_ref(),
            directory.as_os_str(),
            "-e".as_ref(),
            "stderr".as_ref(),
            "-c".as_ref(),
            configuration.as_os_str(),
        ];
        let mut process = Process::start("nginx", &tool("nginx")?, arguments, &directory)?;
        let reached = wait_until("nginx accepts connections", Duration::from_secs(10), || {
            if !process.is_running()? {
                anyhow::bail!("nginx ended");
            }
            Ok(Some(std::net::TcpStream::connect(address)?))
        });
        reached.with_context(|| process.log())?;
        Ok(Self {
            address: address.to_owned(),
            access_log,
            process,
        })
    }

    /// The URL of a served file.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The process, for its log.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Every request that was answered so far.
    ///
    /// # Errors
    /// The log cannot be read, or has a line that is not ours.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let text = fs::read_to_string(&self.access_log).unwrap_or_default();
        // The last line may be half written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse =
            |line: &str| serde_json::from_str(line).with_context(|| format!("nginx's log: {line}"));
        complete.lines().map(parse).collect()
    }

    /// The media that peers took, answered from `since_ms` on: which files, by peer.
    ///
    /// # Errors
    /// See [`Self::requests`].
    pub fn media_by_peer(&self, since_ms: i64) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut by_peer: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for request in self.requests()? {
            if request.is_peer_media() && request.at_ms >= since_ms {
                let name = request.name().to_owned();
                by_peer.entry(request.peer).or_default().insert(name);
            }
        }
        Ok(by_peer)
    }

    /// How many bytes of the named files peers took.
    ///
    /// # Errors
    /// See [`Self::requests`].
    pub fn peer_bytes_of(&self, names: &BTreeSet<String>) -> Result<u64> {
        let requests = self.requests()?;
        let wanted = requests
            .iter()
            .filter(|request| request.is_peer_media() && names.contains(request.name()));
        Ok(wanted.map(|request| request.bytes).sum())
    }
}

fn configure(directory: &Path, served: &Path, address: &str, rate: Option<u64>) -> String {
    let (directory, served) = (directory.display(), served.display());
    let rate = rate.unwrap_or(0);
    // Root, in a user namespace too, would give its directories to a user that may not exist there.
    let user = if geteuid().is_root() {
        "user root root;"
    } else {
        ""
    };
    format!(
        r#"daemon off;
{user}
master_process off;
worker_rlimit_nofile 4096;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    types {{
        application/vnd.apple.mpegurl m3u8;
        video/mp2t ts;
        video/mp4 mp4 m4s;
    }}
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    log_format e2e escape=json '{{"t":$e2e_ms,"peer":"$http_x_peer_id","uri":"$uri",'
        '"status":$status,"bytes":$body_bytes_sent,"range":"$http_range"}}';
    map $msec $e2e_ms {{ "~^(?<seconds>\d+)\.(?<milliseconds>\d+)$" $seconds$milliseconds; }}
    map $http_x_peer_id $e2e_rate {{ {SIGNER} 0; default {rate}; }}
    access_log {directory}/access.json e2e;
    etag on;
    tcp_nodelay on;
    keepalive_timeout 60s;
    keepalive_requests 100000;
    server {{
        listen {address};
        root {served};
        limit_rate $e2e_rate;
        location / {{ add_header Cache-Control no-cache; }}
    }}
}}
"#
    )
}
