//! Network namespaces with slow uplinks, which vanish with the processes in them.
//!
//! A scenario runs itself anew inside a fresh network namespace ([`enter`]): its loopback and bridge are
//! the "internet", so nothing that it does touches the machine's own interfaces, and no name of it can
//! collide. Each peer then gets a namespace of its own ([`Uplink`]), joined to the bridge by a veth pair
//! whose two ends are shaped by `tc tbf`. None of the namespaces has a name: the kernel removes each when
//! its last process ends.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::binaries::tool;
use crate::process::Process;

/// Set inside.
const INSIDE: &str = "ESPALIER_E2E_INSIDE";
/// The bridge's address inside.
pub const HUB: &str = "10.73.0.1";

/// Runs the test `name` again inside a network namespace, or says that this is the inside already.
///
/// Answers `true` inside: play the scenario. Answers `false` outside, after the inside has passed.
///
/// # Errors
/// The inside failed, or no namespace may be made: the error says what to do.
pub fn enter(name: &str, directory: &Path) -> Result<bool> {
    if env::var_os(INSIDE).is_some() {
        die_with_the_outside();
        make_hub()?;
        return Ok(true);
    }
    let mut command = Command::new(tool("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).args(unshare()?);
    command
        .arg(env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1");
    let mut inside = Process::spawn("inside", command, directory, Stdio::piped())?;
    // Held open for as long as this process lives: its end is how the inside notices ours.
    let lifeline = inside.take_stdin().context("the inside's standard input")?;
    let status = inside.wait_for_end(Duration::from_secs(900));
    drop(lifeline);
    eprintln!("{}{}", inside.output(), inside.log());
    ensure!(
        status?.success(),
        "the scenario failed inside its network namespace: see above"
    );
    Ok(false)
}

/// The command that makes a network namespace here and now.
fn unshare() -> Result<Vec<String>> {
    let unshare = tool("unshare")?.display().to_string();
    let candidates = [
        vec![unshare.clone(), "--net".to_owned()],
        vec![
            unshare.clone(),
            "--user".to_owned(),
            "--map-root-user".to_owned(),
            "--net".to_owned(),
        ],
        vec![
            "sudo".to_owned(),
            "-n".to_owned(),
            unshare,
            "--net".to_owned(),
        ],
    ];
    for candidate in candidates {
        let probe = Command::new(&candidate[0])
            .args(&candidate[1..])
            .args(["ip", "link", "set", "lo", "up"])
            .output();
        if probe.is_ok_and(|output| output.status.success()) {
            return Ok(candidate);
        }
    }
    bail!(
        "this scenario needs network namespaces: run it as root, or with password-less sudo, or allow \
         unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu also \
         kernel.apparmor_restrict_unprivileged_userns=0)"
    );
}

/// Ends this process, and with it every child, when the outside closes the lifeline or dies.
fn die_with_the_outside() {
    thread::spawn(|| {
        let mut nothing = [0_u8; 1];
        // Any end of the lifeline, in order or not, means the same.
        let _end: Result<usize, _> = std::io::stdin().read(&mut nothing);
        std::process::exit(1);
    });
}

fn make_hub() -> Result<()> {
    ip("link set lo up")?;
    ip("link add hub type bridge")?;
    ip(&format!("address add {HUB}/16 dev hub"))?;
    ip("link set hub up")?;
    ip("link add hub2 type bridge")?;
    ip("address add 10.74.0.1/16 dev hub2")?;
    ip("link set hub2 up")
}

/// A namespace of its own for one node, with a line to peers and one to other nodes, each of which can be cut: what is
/// sent then is lost, and nobody is told.
#[derive(Clone, Debug)]
pub struct TwoLines {
    /// Numbers the node; from 1.
    pub number: u8,
}

/// One of a node's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To peers and the API.
    Public,
    /// To the other nodes.
    Between,
}

impl TwoLines {
    /// The addresses for peers and for other nodes.
    #[must_use]
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        let address = |net| IpAddr::from([10, net, 2, self.number]);
        (address(73), address(74))
    }

    /// Starts a program in a namespace of its own once the lines are there.
    ///
    /// # Errors
    /// The namespace or the lines cannot be made.
    pub fn start(
        &self,
        name: &str,
        program: &Path,
        arguments: Vec<String>,
        directory: &Path,
    ) -> Result<Process> {
        let mut process = gated(name, program, arguments, directory)?;
        let mut gate = process.take_stdin().context("the gate")?;
        wait_for_own_namespace(process.id())?;
        inside(process.id(), "ip link set lo up")?;
        let (public, between) = self.addresses();
        for (side, hub, address) in [
            (Side::Public, "hub", public),
            (Side::Between, "hub2", between),
        ] {
            let outer = self.outer(side);
            let inner = format!("{outer}i");
            // A line of the node's last life may be on its way out.
            let _gone: Result<()> = ip(&format!("link delete {outer}"));
            ip(&format!(
                "link add {outer} type veth peer name {inner} netns {}",
                process.id()
            ))?;
            ip(&format!("link set {outer} master {hub} up"))?;
            inside(
                process.id(),
                &format!("ip address add {address}/16 dev {inner}"),
            )?;
            inside(process.id(), &format!("ip link set {inner} up"))?;
        }
        gate.write_all(b"up\n")?;
        Ok(process)
    }

    /// Cuts a line, or mends it.
    ///
    /// # Errors
    /// The node has no such line now.
    pub fn set(&self, side: Side, whole: bool) -> Result<()> {
        // Taken off the bridge the line is silent at both ends; set down, the node would be told.
        let outer = self.outer(side);
        match (whole, side) {
            (false, _) => ip(&format!("link set {outer} nomaster")),
            (true, Side::Public) => ip(&format!("link set {outer} master hub")),
            (true, Side::Between) => ip(&format!("link set {outer} master hub2")),
        }
    }

    fn outer(&self, side: Side) -> String {
        match side {
            Side::Public => format!("node{}", self.number),
            Side::Between => format!("raft{}", self.number),
        }
    }
}

/// Runs a command in a process's network namespace.
///
/// # Errors
/// It fails.
pub fn inside(process: u32, arguments: &str) -> Result<()> {
    run("nsenter", &format!("--target {process} --net {arguments}"))
}

/// Starts a program in a network namespace of its own, where it waits for a line on its standard input.
fn gated(name: &str, program: &Path, arguments: Vec<String>, directory: &Path) -> Result<Process> {
    let mut command = Command::new(tool("unshare")?);
    command.args(["--net", "setpriv", "--pdeathsig", "KILL", "--", "sh", "-c"]);
    command
        .arg("read -r line && exec \"$0\" \"$@\"")
        .arg(program)
        .args(arguments);
    command.env("TMPDIR", directory);
    Process::spawn(name, command, directory, Stdio::piped())
}

/// A namespace of its own for one process, behind a slow line.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Numbers the line; from 1.
    pub number: u8,
    /// What the process may send, as `tc` writes rates.
    pub up: String,
    /// What it may receive.
    pub down: String,
}

impl Uplink {
    /// The address that the process has.
    #[must_use]
    pub fn address(&self) -> String {
        format!("10.73.1.{}", self.number)
    }

    /// Starts a program in its namespace once the line is up.
    ///
    /// # Errors
    /// The namespace or the line cannot be made.
    pub fn start(
        &self,
        name: &str,
        program: &Path,
        arguments: Vec<String>,
        directory: &Path,
    ) -> Result<Process> {
        let mut process = gated(name, program, arguments, directory)?;
        let mut gate = process.take_stdin().context("the gate")?;
        self.connect(process.id())
            .with_context(|| format!("the line of {name}"))?;
        gate.write_all(b"up\n")?;
        Ok(process)
    }

    fn connect(&self, process: u32) -> Result<()> {
        let (outer, inner) = (format!("line{}", self.number), "eth0");
        wait_for_own_namespace(process)?;
        ip(&format!(
            "link add {outer} type veth peer name {inner} netns {process}"
        ))?;
        ip(&format!("link set {outer} master hub up"))?;
        tc(&format!(
            "qdisc add dev {outer} root {}",
            shaper(&self.down)
        ))?;
        let address = self.address();
        for arguments in [
            "ip link set lo up".to_owned(),
            format!("ip address add {address}/16 dev {inner}"),
            format!("ip link set {inner} up"),
            format!("tc qdisc add dev {inner} root {}", shaper(&self.up)),
        ] {
            inside(process, &arguments)?;
        }
        Ok(())
    }
}

/// `unshare` needs a moment before the process has a namespace of its own.
fn wait_for_own_namespace(process: u32) -> Result<()> {
    let ours = std::fs::read_link("/proc/self/ns/net")?;
    let path = format!("/proc/{process}/ns/net");
    crate::wait::wait_until("a network namespace", Duration::from_secs(10), || {
        Ok((std::fs::read_link(&path)? != ours).then_some(()))
    })
}

/// A token bucket with room for 400 ms of queue, as a home router has.
fn shaper(rate: &str) -> String {
    format!("tbf rate {rate} burst 16kb latency 400ms")
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

fn tc(arguments: &str) -> Result<()> {
    run("tc", arguments)
}

fn run(name: &str, arguments: &str) -> Result<()> {
    let output = Command::new(tool(name)?)
        .args(arguments.split_whitespace())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {arguments}: {stderr}");
    Ok(())
}
