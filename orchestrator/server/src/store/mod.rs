//! The node's own files, beside its part in the cluster: few, small, written whole.
//!
//! Every file is written to a temporary name, synced, renamed, and its directory synced, so that after a
//! power cut a file is either the old or the new one. One that cannot be used is reported with what to do, and
//! never replaced.
//!
//! There is no caching and no waiting here: the calls block on the disk, so callers in async code use
//! [`on_disk`].

mod data_dir;
mod file;

pub(crate) use data_dir::DataDir;
pub use file::StoreError;

/// Runs a blocking store call on a thread that may block.
///
/// # Errors
/// The call's own error; or [`StoreError::Interrupted`] when the runtime is going down.
pub(crate) async fn on_disk<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or(Err(StoreError::Interrupted))
}
