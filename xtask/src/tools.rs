//! What the checks need beside Rust: the one list of it, and how it is installed.

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;
use crate::console::say;

/// A program, the package that has it, and what needs it.
struct Tool {
    program: &'static str,
    from: Origin,
    why: &'static str,
}

enum Origin {
    /// A Debian package.
    Debian(&'static str),
    /// A crate for `cargo install`; the program is a cargo subcommand.
    Cargo(&'static str),
    /// A component of the Rust toolchain; the program is a cargo subcommand.
    Toolchain(&'static str),
}

use Origin::{Cargo, Debian, Toolchain};

#[rustfmt::skip]
const TOOLS: &[Tool] = &[
    Tool { program: "ffmpeg", from: Debian("ffmpeg"), why: "the live streams of the end-to-end tests" },
    Tool { program: "ffprobe", from: Debian("ffmpeg"), why: "the player of the end-to-end tests" },
    Tool { program: "nginx", from: Debian("nginx-light"), why: "the CDN of the end-to-end tests" },
    Tool { program: "ip", from: Debian("iproute2"), why: "network namespaces for slow links" },
    Tool { program: "tc", from: Debian("iproute2"), why: "the rates of slow links" },
    Tool { program: "ss", from: Debian("iproute2"), why: "cutting the connections of a node" },
    Tool { program: "strace", from: Debian("strace"), why: "a node whose disk is slow" },
    Tool { program: "etcd", from: Debian("etcd-server"), why: "what the nodes' commits are measured beside" },
    Tool { program: "setpriv", from: Debian("util-linux"), why: "child processes that die with their test" },
    Tool { program: "unshare", from: Debian("util-linux"), why: "network namespaces without root" },
    Tool { program: "nsenter", from: Debian("util-linux"), why: "programs inside network namespaces" },
    Tool { program: "node", from: Debian("nodejs"), why: "the packages for browsers" },
    Tool { program: "npm", from: Debian("npm"), why: "what the packages for browsers depend on" },
    Tool { program: "chromium", from: Debian("chromium"), why: "viewers and the dashboard in a browser" },
    Tool { program: "fmt", from: Toolchain("rustfmt"), why: "the formatting check" },
    Tool { program: "clippy", from: Toolchain("clippy"), why: "the lints" },
    Tool { program: "nextest", from: Cargo("cargo-nextest"), why: "the test runner" },
    Tool { program: "deny", from: Cargo("cargo-deny"), why: "the check of licences, bans and sources" },
];

/// Installs what is missing, after saying what and why.
///
/// # Errors
///
/// What is missing and cannot be installed here, with the command that would.
pub(crate) fn set_up() -> Result<()> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        say(format!("all {} tools are there", TOOLS.len()));
        return Ok(());
    }
    let mut packages = Vec::new();
    for tool in &missing {
        let (kind, name) = match tool.from {
            Debian(name) => ("Debian package", name),
            Cargo(name) => ("crate", name),
            Toolchain(name) => ("toolchain component", name),
        };
        say(format!(
            "missing: {} ({kind} {name}), for {}",
            tool.program, tool.why
        ));
        if let Debian(name) = tool.from
            && !packages.contains(&name)
        {
            packages.push(name);
        }
    }
    install_debian(&packages)?;
    for tool in &missing {
        match tool.from {
            Debian(_) => {}
            Cargo(name) => run(&mut cargo(["install", "--locked", name]))?,
            Toolchain(name) => run(Command::new("rustup").args(["component", "add", name]))?,
        }
    }
    for tool in missing {
        ensure!(
            tool.is_there(),
            "{} was installed and is still not there",
            tool.program
        );
    }
    Ok(())
}

/// Whether ffmpeg is there: the demo can do without.
pub(crate) fn has_ffmpeg() -> bool {
    find("ffmpeg").is_some()
}

impl Tool {
    fn is_there(&self) -> bool {
        match self.from {
            Debian(_) => find(self.program).is_some(),
            Cargo(_) | Toolchain(_) => cargo([self.program, "--version"])
                .output()
                .is_ok_and(|output| output.status.success()),
        }
    }
}

/// Finds a program in the path, or where Debian keeps those of the system's administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

fn install_debian(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("this is no Debian: install what is named above by other means, then run this again");
    }
    let root = root().with_context(|| format!("as root, run: {by_hand}"))?;
    say(format!("installing with apt-get: {}", packages.join(", ")));
    let had_nginx = find("nginx").is_some();
    run(root.command("apt-get").args(["update", "-q"]))?;
    run(root
        .command("env")
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-q",
        ])
        .arg("--no-install-recommends")
        .args(packages))?;
    if !had_nginx && packages.contains(&"nginx-light") && find("systemctl").is_some() {
        say("the package starts nginx as a service, which nobody asked for: it is switched off");
        // In a container systemctl is there and systemd is not: then nothing was started either.
        let _nothing_runs = root
            .command("systemctl")
            .args(["disable", "--now", "nginx"])
            .status();
    }
    Ok(())
}

/// The way to be root.
enum Root {
    Already,
    Sudo(&'static [&'static str]),
}

impl Root {
    fn command(&self, program: &str) -> Command {
        match self {
            Self::Already => Command::new(program),
            Self::Sudo(options) => {
                let mut command = Command::new("sudo");
                command.args(*options).arg(program);
                command
            }
        }
    }
}

fn root() -> Result<Root> {
    if nix::unistd::geteuid().is_root() {
        return Ok(Root::Already);
    }
    ensure!(
        find("sudo").is_some(),
        "packages need root, and there is no sudo"
    );
    // Nobody could answer a question for a password.
    let silent = env::var_os("CI").is_some() || !std::io::stdin().is_terminal();
    let options: &[&str] = if silent { &["-n"] } else { &[] };
    Ok(Root::Sudo(options))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("{shown} did not run"))?;
    ensure!(status.success(), "{shown} failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_named_once_and_says_why() {
        for (index, tool) in TOOLS.iter().enumerate() {
            assert!(!tool.why.is_empty());
            assert!(
                TOOLS[..index]
                    .iter()
                    .all(|other| other.program != tool.program)
            );
        }
    }

    #[test]
    fn programs_are_found() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
