//! The node, with a channel that its sessions belong to.

use std::path::Path;
use std::process::{Command, Stdio};

use tonic::transport::Endpoint;

use crate::served::Served;
use crate::support::viewer_token;

/// Starts it as a process.
pub(crate) async fn start(dir: &Path, sessions: usize) -> anyhow::Result<Served> {
    let text = format!(
        "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[limits]\nmax_sessions = {}\n\
         calls_per_second_per_address = 100000\nmax_concurrent_calls = {}\n",
        sessions + 100,
        sessions + 1_000
    );
    let config = dir.join("node.toml");
    std::fs::write(&config, text)?;
    let child = Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"))
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut served = Served::new(child, String::new())?;
    let token = served.line("ESPALIER_TOKEN=")?;
    let endpoint = Endpoint::from_shared(served.endpoint.clone())?;
    served.token = viewer_token(&[endpoint], &token).await?;
    Ok(served)
}
