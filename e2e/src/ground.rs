//! What a node runs on: the machine as it is, or one with a disk or a network of its own that a scenario can break.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::binaries::tool;
use crate::namespaces::TwoLines;
use crate::process::Process;

/// Where each sync of a slow disk is noted, in the node's directory.
const SYNCS: &str = "syncs.strace";

/// What a node runs on.
#[derive(Clone, Debug)]
pub enum Ground {
    /// The machine as it is.
    Plain,
    /// Its data lie on a tmpfs of so many bytes, in a mount namespace of its own. Gone with the process.
    SmallDisk {
        /// The disk's size.
        bytes: u64,
    },
    /// Each sync of its disk takes longer by so much. strace holds the calling thread back, and no other.
    SlowDisk {
        /// How much longer.
        delay: Duration,
    },
    /// A network namespace of its own, with one line to peers and one to the other nodes.
    Lines(TwoLines),
}

impl Ground {
    /// The addresses for peers and for other nodes, if they differ from the scene's.
    #[must_use]
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::Lines(lines) => Some(lines.addresses()),
            Self::Plain | Self::SmallDisk { .. } | Self::SlowDisk { .. } => None,
        }
    }

    /// How many syncs of a slow disk took longer, of a node that works in this directory.
    ///
    /// # Errors
    /// Nothing was noted.
    pub fn slow_syncs(directory: &Path) -> Result<usize> {
        let text = std::fs::read_to_string(directory.join(SYNCS))?;
        Ok(text
            .lines()
            .filter(|line| line.contains("(DELAYED)"))
            .count())
    }

    /// Starts a node here.
    ///
    /// # Errors
    /// It cannot be started, or the ground not be made.
    pub fn start(
        &self,
        name: &str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Process> {
        match self {
            Self::Plain => Process::start(name, program, arguments, directory),
            Self::SmallDisk { bytes } => {
                let mut command = Command::new(tool("unshare")?);
                if !nix::unistd::geteuid().is_root() {
                    command.arg("--map-root-user");
                }
                let script = format!(
                    "mkdir -p data && mount -t tmpfs -o size={bytes} tmpfs data && exec \"$0\" \"$@\""
                );
                command.args(["--mount", "setpriv", "--pdeathsig", "KILL", "--"]);
                command.args(["sh", "-c", &script]);
                command.arg(program).args(arguments);
                command.env("TMPDIR", directory);
                Process::spawn(name, command, directory, Stdio::null())
            }
            Self::SlowDisk { delay } => {
                let slow = format!("inject=fdatasync,fsync:delay_exit={}", delay.as_micros());
                let words = ["-f", "--seccomp-bpf", "-qq", "-o", SYNCS];
                let mut all: Vec<String> = words.map(str::to_owned).to_vec();
                all.extend(["-e".to_owned(), "trace=fdatasync,fsync".to_owned()]);
                all.extend(["-e".to_owned(), slow, "--".to_owned()]);
                all.push(program.display().to_string());
                all.extend(arguments.iter().cloned());
                Process::start(name, &tool("strace")?, all, directory)
            }
            Self::Lines(lines) => lines.start(name, program, arguments.to_vec(), directory),
        }
    }
}
