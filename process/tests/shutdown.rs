//! Signals, sent to this very process.

use std::time::Duration;

use espalier_process::{ShutdownSignal, shutdown};
use nix::sys::signal::{Signal, raise};

/// One test, because signals are the process's and not the test's.
#[tokio::test]
async fn either_signal_is_seen_even_before_the_first_poll() {
    for (sent, expected) in [
        (Signal::SIGTERM, ShutdownSignal::Terminate),
        (Signal::SIGINT, ShutdownSignal::Interrupt),
    ] {
        // A runtime of its own each, so that the task that waits for a second SIGINT, which would
        // end the process, ends with it.
        let seen = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let wish = shutdown();
                raise(sent).unwrap();
                tokio::time::timeout(Duration::from_secs(10), wish).await
            })
        })
        .join()
        .unwrap();
        assert_eq!(seen, Ok(expected));
    }
}
