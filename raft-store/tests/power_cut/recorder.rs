//! Records what the store does to its files, by standing in for the C library's functions.
//!
//! The functions below are linked into this test's program in place of the C library's. They pass everything
//! on to the kernel; what concerns a file under the recorded directory is written down, in order, when the
//! kernel has done it. sled and the standard library both come through here.

#![allow(
    unsafe_code,
    reason = "standing in for C functions; each passes its arguments on unchanged"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the kernel's answers fit what the C functions return"
)]

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_char, c_int, c_void, off64_t, size_t, ssize_t};

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Bytes were written.
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// A file was given a length.
    Length { path: PathBuf, length: u64 },
    /// A file's bytes were synced; with `metadata`, the directory entries too.
    Sync { path: PathBuf, metadata: bool },
    /// A file was renamed.
    Rename { from: PathBuf, to: PathBuf },
    /// A file's name was removed.
    Unlink { path: PathBuf },
    /// The test noted something.
    Note(String),
}

struct Recording {
    root: PathBuf,
    events: Vec<Event>,
}

static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Recording>> {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to record what happens under a directory.
pub(crate) fn start(root: &Path) {
    *lock() = Some(Recording {
        root: root.to_owned(),
        events: Vec::new(),
    });
}

/// Ends the recording.
pub(crate) fn stop() -> Vec<Event> {
    lock()
        .take()
        .map(|recording| recording.events)
        .unwrap_or_default()
}

/// Puts a note between the events.
pub(crate) fn note(text: &str) {
    if let Some(recording) = lock().as_mut() {
        recording.events.push(Event::Note(text.to_owned()));
    }
}

/// The path of an open file under the recorded directory.
fn path_of(recording: &Recording, file: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{file}")).ok()?;
    path.starts_with(&recording.root).then_some(path)
}

/// Runs a system call on an open file and records it, in one step.
fn on_file(
    file: c_int,
    call: impl FnOnce() -> ssize_t,
    event: impl FnOnce(PathBuf, ssize_t) -> Event,
) -> ssize_t {
    let mut recording = lock();
    let path = recording
        .as_ref()
        .and_then(|recording| path_of(recording, file));
    let (Some(recording), Some(path)) = (recording.as_mut(), path) else {
        drop(recording);
        return call();
    };
    let answer = call();
    if answer >= 0 {
        recording.events.push(event(path, answer));
    }
    answer
}

fn on_path(
    path: *const c_char,
    call: impl FnOnce() -> c_int,
    event: impl FnOnce(PathBuf) -> Event,
) -> c_int {
    // SAFETY: the caller of the C function promises a string.
    let path = PathBuf::from(
        unsafe { CStr::from_ptr(path) }
            .to_string_lossy()
            .into_owned(),
    );
    let mut recording = lock();
    let answer = call();
    if let Some(recording) = recording.as_mut()
        && answer == 0
        && path.starts_with(&recording.root)
    {
        recording.events.push(event(path));
    }
    answer
}

fn copy(bytes: *const c_void, count: ssize_t) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the kernel has just read so many bytes from there.
    unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) }.to_vec()
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(
    file: c_int,
    bytes: *const c_void,
    count: size_t,
    offset: off64_t,
) -> ssize_t {
    on_file(
        file,
        // SAFETY: the arguments are the caller's.
        || unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, count, offset) as ssize_t },
        |path, done| Event::Write {
            path,
            offset: u64::try_from(offset).unwrap_or(0),
            bytes: copy(bytes, done),
        },
    )
}

#[unsafe(no_mangle)]
extern "C" fn write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: asking for a position changes nothing; on what has none it fails.
    let offset = unsafe { libc::syscall(libc::SYS_lseek, file, 0, libc::SEEK_CUR) };
    on_file(
        file,
        // SAFETY: the arguments are the caller's.
        || unsafe { libc::syscall(libc::SYS_write, file, bytes, count) as ssize_t },
        |path, done| Event::Write {
            path,
            offset: u64::try_from(offset).unwrap_or(0),
            bytes: copy(bytes, done),
        },
    )
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(file: c_int, length: off64_t) -> c_int {
    let answer = on_file(
        file,
        // SAFETY: the arguments are the caller's.
        || unsafe { libc::syscall(libc::SYS_ftruncate, file, length) as ssize_t },
        |path, _| Event::Length {
            path,
            length: u64::try_from(length).unwrap_or(0),
        },
    );
    if answer < 0 { -1 } else { 0 }
}

fn sync(file: c_int, call: libc::c_long, metadata: bool) -> c_int {
    let answer = on_file(
        file,
        // SAFETY: the argument is the caller's.
        || unsafe { libc::syscall(call, file) as ssize_t },
        |path, _| Event::Sync { path, metadata },
    );
    if answer < 0 { -1 } else { 0 }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, libc::SYS_fsync, true)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, libc::SYS_fdatasync, false)
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller of the C function promises a string.
    let target = PathBuf::from(unsafe { CStr::from_ptr(to) }.to_string_lossy().into_owned());
    on_path(
        from,
        // SAFETY: the arguments are the caller's.
        || unsafe {
            let here = libc::AT_FDCWD;
            libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) as c_int
        },
        |from| Event::Rename { from, to: target },
    )
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    on_path(
        path,
        // SAFETY: the arguments are the caller's.
        || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int },
        |path| Event::Unlink { path },
    )
}
