//! One `espalier-peer` process.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::http::Http;
use crate::logs::first_logged_ms;
use crate::process::Process;
use crate::stats::Stats;

/// How long a peer may take until it says that it is ready.
const START: Duration = Duration::from_secs(30);
/// How long an answer of its local server may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What a peer does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Plays it and passes it on.
    Contributor,
    /// Plays it.
    Consumer,
    /// Passes it on.
    Relay,
}

/// How a peer is started.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Which program; one with the command line of `espalier-peer`.
    pub program: PathBuf,
    /// The value of `--upload`.
    pub upload: String,
    /// What it does with what it receives.
    pub role: Role,
    /// The address that its local server and its links are bound to.
    pub address: String,
    /// More arguments.
    pub more: Vec<String>,
}

/// A running peer that plays.
#[derive(Debug)]
pub struct Peer {
    /// Its id, as it announced it.
    pub id: String,
    /// The process.
    pub process: Process,
    master_url: String,
    http: Http,
}

/// What a peer needs to know of the node.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The nodes' endpoints; a peer goes to the first.
    pub endpoints: Vec<String>,
    /// The channel's id.
    pub channel: String,
    /// A viewer's token.
    pub token: String,
}

impl PeerOptions {
    /// The command line, but for the program.
    #[must_use]
    pub fn arguments(&self, invitation: &Invitation) -> Vec<String> {
        let mut arguments = vec![
            if self.role == Role::Relay {
                "relay"
            } else {
                "play"
            }
            .to_owned(),
            "--orchestrator".to_owned(),
            invitation.endpoints.join(","),
            "--channel".to_owned(),
            invitation.channel.clone(),
            "--token".to_owned(),
            invitation.token.clone(),
            "--listen".to_owned(),
            any_port(&self.address),
            "--upload".to_owned(),
            self.upload.clone(),
            "--bind".to_owned(),
            self.address.clone(),
        ];
        if self.role == Role::Consumer {
            arguments.push("--consumer".to_owned());
        }
        arguments.extend(self.more.iter().cloned());
        arguments
    }
}

impl Peer {
    /// Starts a process without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(
        name: &str,
        options: &PeerOptions,
        invitation: &Invitation,
        directory: &Path,
    ) -> Result<Process> {
        Process::start(
            name,
            &options.program,
            options.arguments(invitation),
            directory,
        )
    }

    /// Waits until a launched process says who and where it is.
    ///
    /// # Errors
    /// It ended, or the deadline passed.
    pub fn attach(mut process: Process, http: &Http) -> Result<Self> {
        let id = process.wait_for_announced("ESPALIER_PEER", START)?;
        let master_url = process.wait_for_announced("ESPALIER_URL", START)?;
        Ok(Self {
            id,
            process,
            master_url,
            http: http.clone(),
        })
    }

    /// The URL that a player opens.
    #[must_use]
    pub fn master_url(&self) -> &str {
        &self.master_url
    }

    /// The URL of a track's media playlist.
    #[must_use]
    pub fn track_url(&self, track: &str) -> String {
        let base = self
            .master_url
            .rsplit_once('/')
            .map_or("", |(base, _)| base);
        format!("{base}/{track}/index.m3u8")
    }

    /// When the peer's log first had a line with all of these words, in milliseconds since the Unix
    /// epoch.
    #[must_use]
    pub fn logged_ms(&self, words: &[&str]) -> Option<i64> {
        first_logged_ms(&self.process.log(), words)
    }

    /// `/stats`.
    ///
    /// # Errors
    /// It is not answered, or does not keep its contract.
    pub fn stats(&self) -> Result<Stats> {
        let (_, rest) = self
            .master_url
            .split_once("://")
            .context("the peer's URL")?;
        let authority = rest.split('/').next().unwrap_or_default();
        self.http
            .get_json(&format!("http://{authority}/stats"), ANSWER)
    }
}

/// Any port of an address, as `--listen` takes it: IPv6 goes in brackets.
fn any_port(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, 0).to_string(),
        Err(_) => format!("{address}:0"),
    }
}

#[cfg(test)]
mod tests {
    use super::any_port;

    #[test]
    fn an_address_of_either_kind_gets_a_port() {
        assert_eq!(any_port("127.0.0.1"), "127.0.0.1:0");
        assert_eq!(any_port("::1"), "[::1]:0");
    }
}
