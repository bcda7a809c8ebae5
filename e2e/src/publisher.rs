//! Publishes what the packager writes to where nginx serves it, and keeps the truth about it.
//!
//! The packager works in a directory of its own. Each finished file is linked into the served
//! directory at once, so the moment of its appearance and its SHA-256 are known exactly. Faults of an
//! origin are made here, by what is served instead of the packager's playlists; the packager itself
//! goes on. It does not change a byte of any segment.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sha2::{Digest as _, Sha256};

use crate::wait::unix_ms;

/// The truth about one published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// SHA-256, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub length: u64,
    /// When nginx could serve it first, in milliseconds since the Unix epoch.
    pub appeared_ms: i64,
}

/// What is served in place of the playlists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is wrong.
    None,
    /// The playlists do not change any more.
    Frozen,
    /// The playlists are not there: nginx answers 404.
    Missing,
    /// Something that is no playlist.
    Garbage,
    /// Playlists as they were some time ago: the first that were published after the start.
    JumpedBack,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    files: BTreeMap<String, Published>,
    first_playlists: BTreeMap<String, Vec<u8>>,
    playlists: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    work: PathBuf,
    served: PathBuf,
    state: Mutex<State>,
    stop: AtomicBool,
}

/// The publishing thread; it ends when this value is dropped.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Watches `work` and publishes into `served`; both exist.
    ///
    /// # Errors
    /// The directory cannot be watched.
    pub fn start(work: &Path, served: &Path) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE;
        inotify
            .add_watch(work, events)
            .context("watch the packager's directory")?;
        let state = State {
            fault: Fault::None,
            files: BTreeMap::new(),
            first_playlists: BTreeMap::new(),
            playlists: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            work: work.to_path_buf(),
            served: served.to_path_buf(),
            state: Mutex::new(state),
            stop: AtomicBool::new(false),
        });
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || worker.run(&inotify))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes what is served, at once.
    ///
    /// # Errors
    /// The served files cannot be written.
    pub fn set_fault(&self, fault: Fault) -> Result<()> {
        let mut state = self.shared.state();
        state.fault = fault;
        for name in state.playlists.keys() {
            self.shared.serve_playlist(&state, name)?;
        }
        Ok(())
    }

    /// The truth about a file that was published under this name.
    #[must_use]
    pub fn published(&self, name: &str) -> Option<Published> {
        self.shared.state().files.get(name).cloned()
    }

    /// Everything that was published so far, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Published> {
        self.shared.state().files.clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by the thread itself.
            let _panicked: Result<(), _> = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, inotify: &Inotify) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut descriptors = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, PollTimeout::from(100_u8)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return eprintln!("publisher: poll: {error}"),
            }
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => return eprintln!("publisher: inotify: {error}"),
            };
            for event in events {
                let Some(name) = event.name.as_ref().and_then(|name| name.to_str()) else {
                    continue;
                };
                let outcome = if event.mask.contains(AddWatchFlags::IN_DELETE) {
                    self.withdraw(name)
                } else {
                    self.publish(name)
                };
                if let Err(error) = outcome {
                    eprintln!("publisher: {name}: {error:#}");
                }
            }
        }
    }

    fn publish(&self, name: &str) -> Result<()> {
        if name.ends_with(".tmp") || name.ends_with(".out") || name.ends_with(".log") {
            return Ok(());
        }
        if name.ends_with(".m3u8") {
            let text = fs::read(self.work.join(name))?;
            let mut state = self.state();
            state
                .first_playlists
                .entry(name.to_owned())
                .or_insert_with(|| text.clone());
            state.playlists.insert(name.to_owned(), text);
            return self.serve_playlist(&state, name);
        }
        let source = self.work.join(name);
        if fs::metadata(&source)?.len() == 0 {
            return Ok(());
        }
        match fs::hard_link(&source, self.served.join(name)) {
            Ok(()) => {}
            // Written again in place, or seen both when closed and when renamed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error).context("link into the served directory"),
        }
        let appeared_ms = unix_ms();
        let bytes = fs::read(&source)?;
        let length = u64::try_from(bytes.len())?;
        let published = Published {
            sha256: sha256_hex(&bytes),
            length,
            appeared_ms,
        };
        if self
            .state()
            .files
            .insert(name.to_owned(), published)
            .is_some()
        {
            bail!("published twice");
        }
        Ok(())
    }

    fn withdraw(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.served.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Serves what the fault wants to be seen in place of the playlist.
    fn serve_playlist(&self, state: &State, name: &str) -> Result<()> {
        let garbage = b"\x00\xff<html>502 Bad Gateway</html>\r\n#EXTINF:".to_vec();
        let bytes = match state.fault {
            Fault::None => state.playlists.get(name),
            Fault::Frozen => return Ok(()),
            Fault::Missing => return self.withdraw(name),
            Fault::Garbage => Some(&garbage),
            Fault::JumpedBack => state.first_playlists.get(name),
        };
        let Some(bytes) = bytes else { return Ok(()) };
        let temporary = self.served.join(format!(".{name}.new"));
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, self.served.join(name))?;
        Ok(())
    }
}

/// SHA-256 in lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::{Fault, Publisher, sha256_hex};
    use crate::wait::wait_until;

    fn within(what: &str, mut condition: impl FnMut() -> bool) {
        wait_until(what, Duration::from_secs(10), || {
            Ok(condition().then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn publishes_files_and_makes_faults() {
        let directory = tempfile::tempdir().unwrap();
        let (work, served) = (
            directory.path().join("work"),
            directory.path().join("served"),
        );
        fs::create_dir(&work).unwrap();
        fs::create_dir(&served).unwrap();
        let publisher = Publisher::start(&work, &served).unwrap();

        fs::write(work.join("a-0.ts.tmp"), b"segment").unwrap();
        fs::rename(work.join("a-0.ts.tmp"), work.join("a-0.ts")).unwrap();
        within("the segment is known", || {
            publisher.published("a-0.ts").is_some()
        });
        assert_eq!(
            publisher.published("a-0.ts").unwrap().sha256,
            sha256_hex(b"segment")
        );
        assert_eq!(fs::read(served.join("a-0.ts")).unwrap(), b"segment");
        assert!(!served.join("a-0.ts.tmp").exists());

        let playlist = served.join("live.m3u8");
        let put = |text: &str| fs::write(work.join("live.m3u8"), text).unwrap();
        let serves = |text: &str| fs::read(&playlist).is_ok_and(|bytes| bytes == text.as_bytes());
        put("one");
        within("the first playlist is served", || serves("one"));
        put("two");
        within("the second playlist is served", || serves("two"));
        publisher.set_fault(Fault::JumpedBack).unwrap();
        assert!(serves("one"));
        publisher.set_fault(Fault::Missing).unwrap();
        assert!(!playlist.exists());
        publisher.set_fault(Fault::Garbage).unwrap();
        assert!(!serves("one") && !serves("two") && playlist.exists());
        publisher.set_fault(Fault::None).unwrap();
        assert!(serves("two"));

        fs::remove_file(work.join("a-0.ts")).unwrap();
        within("the segment is withdrawn", || {
            !served.join("a-0.ts").exists()
        });
        assert!(
            publisher.published("a-0.ts").is_some(),
            "what was published stays known"
        );
    }
}
