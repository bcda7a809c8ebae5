//! A player that keeps count: it follows a peer's playlist, fetches every segment, and hashes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::http::Http;
use crate::origin::Origin;
use crate::playlist::{self, Listed};
use crate::publisher::sha256_hex;
use crate::wait::unix_ms;

/// How often it reads the playlist.
const POLL: Duration = Duration::from_millis(250);
/// The longest that it waits for a playlist or a segment.
const PATIENCE: Duration = Duration::from_secs(30);

/// One segment as it came from the peer.
#[derive(Clone, Debug)]
pub struct Received {
    /// The epoch in its URI.
    pub epoch: u32,
    /// Its media sequence number.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// SHA-256 of the init section that it needs.
    pub init_sha256: Option<String>,
    /// Bytes.
    pub length: u64,
    /// When it was seen listed, in milliseconds since the Unix epoch.
    pub listed_ms: i64,
    /// When its last byte was there.
    pub received_ms: i64,
}

#[derive(Debug, Default)]
struct Book {
    received: Vec<Received>,
    problems: Vec<String>,
    inits: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    playlist_url: String,
    book: Mutex<Book>,
    stop: AtomicBool,
}

/// A following thread; it ends when this value is dropped.
#[derive(Debug)]
pub struct Viewer {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Viewer {
    /// Follows the media playlist at `playlist_url` from its newest segment on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(name: &str, http: &Http, playlist_url: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            http: http.clone(),
            playlist_url: playlist_url.to_owned(),
            book: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("viewer-{name}"))
            .spawn(move || worker.run())?;
        Ok(Self {
            name: name.to_owned(),
            shared,
            thread: Some(thread),
        })
    }

    /// The name that it was started under: a peer's id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every segment received so far, in the order of its arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.book().received.clone()
    }

    /// Everything that no player should meet: gaps, repeats, errors.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.book().problems.clone()
    }

    /// Demands that nothing was missed or repeated and nothing failed.
    ///
    /// # Errors
    /// What went wrong.
    pub fn expect_flawless(&self) -> Result<()> {
        let problems = self.problems();
        ensure!(
            problems.is_empty(),
            "the player at {}: {}",
            self.name,
            problems.join("; ")
        );
        ensure!(
            !self.received().is_empty(),
            "the player at {} received nothing",
            self.name
        );
        Ok(())
    }

    /// Demands that every byte is the origin's. The origin's packager was never restarted.
    ///
    /// # Errors
    /// The first segment or init section that differs.
    pub fn expect_identical(&self, origin: &Origin, rendition: &str) -> Result<usize> {
        let received = self.received();
        for segment in &received {
            let name = origin.segment_name(rendition, segment.sequence);
            let truth = origin.published(&name).with_context(|| {
                format!(
                    "{} served {name}, which the origin never published",
                    self.name
                )
            })?;
            if truth.sha256 != segment.sha256 || truth.length != segment.length {
                bail!(
                    "{} served other bytes as {name}: {segment:?}, not {truth:?}",
                    self.name
                );
            }
            if let Some(init) = &segment.init_sha256 {
                let name = origin.name_of(init).with_context(|| {
                    format!(
                        "{} served an init section that is not the origin's",
                        self.name
                    )
                })?;
                ensure!(
                    name.starts_with("init-"),
                    "{} served {name} as an init section",
                    self.name
                );
            }
        }
        Ok(received.len())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by the thread itself.
            let _panicked: Result<(), _> = thread.join();
        }
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.follow() {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                self.book()
                    .problems
                    .push(format!("at {}: {error:#}", unix_ms()));
            }
            thread::sleep(POLL);
        }
    }

    /// One look at the playlist, and everything new in it.
    fn follow(&self) -> Result<()> {
        let answer = self.http.get(&self.playlist_url, PATIENCE)?;
        ensure!(
            answer.status == 200,
            "the playlist: status {}",
            answer.status
        );
        let text = String::from_utf8(answer.body).context("the playlist")?;
        let playlist = playlist::parse(&text).with_context(|| format!("no playlist: {text}"))?;
        let listed_ms = unix_ms();
        for segment in self.new_segments(playlist.segments)? {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.fetch(&segment, listed_ms)?;
        }
        Ok(())
    }

    /// What follows the last received segment; at first only the newest.
    fn new_segments(&self, listed: Vec<Listed>) -> Result<Vec<Listed>> {
        let last = self
            .book()
            .received
            .last()
            .map(|last| (last.epoch, last.sequence));
        let Some((epoch, sequence)) = last else {
            return Ok(listed.into_iter().next_back().into_iter().collect());
        };
        let mut new = Vec::new();
        let mut expected = (epoch, sequence + 1);
        for segment in listed {
            let (its_epoch, its_sequence) = identify(&segment.uri)?;
            if (its_epoch, its_sequence) <= (epoch, sequence) {
                continue;
            }
            if its_epoch == expected.0 && its_sequence > expected.1 {
                let missed = format!(
                    "missed {}-{} to {its_epoch}-{its_sequence}",
                    expected.0, expected.1
                );
                self.book().problems.push(missed);
            }
            expected = (its_epoch, its_sequence + 1);
            new.push(segment);
        }
        Ok(new)
    }

    fn fetch(&self, segment: &Listed, listed_ms: i64) -> Result<()> {
        let (epoch, sequence) = identify(&segment.uri)?;
        let init_sha256 = segment
            .init
            .as_deref()
            .map(|uri| self.init(uri))
            .transpose()?;
        let answer = self.http.get(&self.resolve(&segment.uri), PATIENCE)?;
        ensure!(
            answer.status == 200,
            "{}: status {}",
            segment.uri,
            answer.status
        );
        let received = Received {
            epoch,
            sequence,
            sha256: sha256_hex(&answer.body),
            init_sha256,
            length: u64::try_from(answer.body.len())?,
            listed_ms,
            received_ms: unix_ms(),
        };
        let mut book = self.book();
        if let Some(before) = book
            .received
            .iter()
            .find(|before| before.epoch == epoch && before.sha256 == received.sha256)
        {
            let repeated = format!(
                "{epoch}-{sequence} repeats the bytes of {}-{}",
                before.epoch, before.sequence
            );
            book.problems.push(repeated);
        }
        book.received.push(received);
        Ok(())
    }

    /// The hash of an init section, which is fetched once.
    fn init(&self, uri: &str) -> Result<String> {
        if let Some(known) = self.book().inits.get(uri) {
            return Ok(known.clone());
        }
        let answer = self.http.get(&self.resolve(uri), PATIENCE)?;
        ensure!(answer.status == 200, "{uri}: status {}", answer.status);
        let sha256 = sha256_hex(&answer.body);
        self.book().inits.insert(uri.to_owned(), sha256.clone());
        Ok(sha256)
    }

    fn resolve(&self, uri: &str) -> String {
        let base = self
            .playlist_url
            .rsplit_once('/')
            .map_or("", |(base, _)| base);
        format!("{base}/{uri}")
    }
}

/// "<epoch>-<sequence>.<ext>" → (epoch, sequence).
fn identify(uri: &str) -> Result<(u32, u64)> {
    let stem = uri.split('.').next().unwrap_or_default();
    let parts = stem
        .split_once('-')
        .with_context(|| format!("a segment's URI: {uri}"))?;
    Ok((parts.0.parse()?, parts.1.parse()?))
}
