//! The threads that channels' actors run on.
//!
//! actix wants a `System` on a thread of its own; tonic and everything else run on tokio's threads beside
//! it. Addresses cross freely.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::{Arbiter, ArbiterHandle, System};

/// The actor system: a thread for it, and one arbiter a core.
#[derive(Debug)]
pub(crate) struct Arbiters {
    system: System,
    arbiters: Vec<ArbiterHandle>,
    next: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Arbiters {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("actors".to_owned())
            .spawn(move || {
                let runner = System::new();
                runner.block_on(async {
                    let arbiters: Vec<_> = (0..count).map(|_| Arbiter::new().handle()).collect();
                    if sender.send((System::current(), arbiters)).is_err() {
                        System::current().stop();
                    }
                });
                if let Err(error) = runner.run() {
                    tracing::error!(%error, "the actor system ended with an error");
                }
            })?;
        let (system, arbiters) = receiver
            .recv()
            .map_err(|_| std::io::Error::other("the actor system did not start"))?;
        Ok(Self {
            system,
            arbiters,
            next: AtomicUsize::new(0),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The arbiter that the next actor is to run on.
    pub(super) fn next(&self) -> &ArbiterHandle {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        &self.arbiters[index % self.arbiters.len()]
    }

    /// Stops every actor and waits for the threads to end.
    pub(crate) fn stop(&self) {
        self.system.stop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the actor system's thread panicked");
        }
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        self.system.stop();
    }
}
