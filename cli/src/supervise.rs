//! Runs a program that cannot outlive whoever started it.
//!
//! The demo starts its children through this hidden command: it asks the kernel to send SIGKILL when
//! its parent ends (`PR_SET_PDEATHSIG`, which survives `execve`) and then becomes the program. Doing
//! this in a program of its own, and not between fork and exec, needs no unsafe code.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use espalier_process::Failure;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

#[derive(Debug, clap::Args)]
pub(crate) struct SuperviseArgs {
    /// The process to die with
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Becomes the program; returns only if that failed.
pub(crate) fn run(args: &SuperviseArgs) -> Failure {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return Failure::failed("cannot tie this process to its parent").caused_by(&error);
    }
    // The parent may have ended before the line above: then no signal will ever come.
    if getppid() != Pid::from_raw(args.parent) {
        return Failure::failed("the process that started this one is gone");
    }
    let Some((program, rest)) = args.program.split_first() else {
        return Failure::usage("there is no program to run");
    };
    let error = Command::new(program).args(rest).exec();
    Failure::failed(format!("cannot run {}", program.display())).caused_by(&error)
}
