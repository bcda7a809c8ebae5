//! Makes sled's flush reach the disk.
//!
//! On Linux sled 0.34 ends each write with `sync_file_range`, which starts write-back of pages and nothing
//! more: it neither flushes the device's cache nor writes the file's metadata (its man page says so), and
//! in simulated power cuts acknowledged entries were lost. This module defines that symbol for the whole
//! program, as `fdatasync`, and counts, so that a store can check at its start that sled's flush comes here.
//!
//! Invariant: a flush of sled returns after `fdatasync` returned, or fails.
//!
//! It does not sync by itself, and it knows nothing of stores.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the override is in this program. Elsewhere than on Linux sled calls `fsync` by itself.
pub(crate) const OVERRIDDEN: bool = cfg!(target_os = "linux");

/// Syncs that came through the override since the program started.
static SYNCS: AtomicU64 = AtomicU64::new(0);
/// Of these, the ones that the operating system refused.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// How often the override was called, and how often the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncCount {
    /// Calls, successful or not.
    pub calls: u64,
    /// Calls that the operating system answered with an error.
    pub failed: u64,
}

/// Returns the count since the program started.
///
/// It names the override itself, so that a linker that takes this function takes the override as well.
#[must_use]
pub fn count() -> SyncCount {
    #[cfg(target_os = "linux")]
    std::hint::black_box(
        imp::sync_file_range
            as extern "C" fn(
                libc::c_int,
                libc::off64_t,
                libc::off64_t,
                libc::c_uint,
            ) -> libc::c_int,
    );
    SyncCount {
        calls: SYNCS.load(Ordering::SeqCst),
        failed: FAILED.load(Ordering::SeqCst),
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use super::{FAILED, Ordering, SYNCS};

    /// Takes the place of the C library's function of this name in the whole program.
    #[allow(
        unsafe_code,
        reason = "sled calls this symbol and offers no hook; the signature is the C library's, and the \
                  body only passes the caller's descriptor on to fdatasync"
    )]
    #[unsafe(no_mangle)]
    pub(super) extern "C" fn sync_file_range(
        file: libc::c_int,
        _offset: libc::off64_t,
        _length: libc::off64_t,
        _flags: libc::c_uint,
    ) -> libc::c_int {
        // SAFETY: fdatasync takes any integer and answers EBADF to one that is no open file.
        let answer = unsafe { libc::fdatasync(file) };
        SYNCS.fetch_add(1, Ordering::SeqCst);
        if answer != 0 {
            FAILED.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }
}
