//! The wish of a person or a supervisor that this process end.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ExitCode;

/// Which signal asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: a supervisor.
    Terminate,
}

/// Returns a future that is ready when SIGINT or SIGTERM arrives.
///
/// Signals are caught from this call on, not from the first poll, so none is lost in between. After
/// the first signal a further SIGINT ends the process at once with exit code 1: whoever presses
/// Ctrl-C twice does not want to wait for a clean end.
///
/// # Panics
///
/// Outside of a tokio runtime with its IO driver on.
#[must_use = "futures do nothing unless polled"]
pub fn shutdown() -> impl Future<Output = ShutdownSignal> + Send + 'static {
    let mut interrupt = catch(SignalKind::interrupt());
    let mut terminate = catch(SignalKind::terminate());
    async move {
        let seen = tokio::select! {
            _ = interrupt.recv() => ShutdownSignal::Interrupt,
            _ = terminate.recv() => ShutdownSignal::Terminate,
        };
        tokio::spawn(async move {
            if interrupt.recv().await.is_some() {
                std::process::exit(i32::from(ExitCode::Failed.number()));
            }
        });
        seen
    }
}

fn catch(kind: SignalKind) -> Signal {
    signal(kind).expect("invariant: SIGINT and SIGTERM can be caught, inside a tokio runtime")
}
