//! Decides what to read from an origin, and when, and what to sign.
//!
//! ```text
//!   handle_master / handle_playlist / handle_object / handle_timeout
//!                              │
//!        master ──► tracks ────┴─► schedule ──► numbering ──► pipeline ──► statements
//!                              │
//!                        poll_command, poll_timeout
//! ```
//!
//! Invariant: every request that was commanded is answered once by its `handle_*`, or cancelled.
//! Invariant: statements of one track are commanded in the order of their keys.
//!
//! There is no clock and no IO here: time is an argument, the shell fetches.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use espalier_media::hls::{self, MasterPlaylist, Playlist};
use espalier_media::{
    ByteRange, HashedObject, SignError, SignedStatement, Statement, StatementKey, Track, TrackIndex,
};

use crate::fetch::{FetchError, PlaylistAnswer};
use crate::master::{self, MasterPoll};
use crate::names;
use crate::pipeline::{Outcome, RequestId};
use crate::state::SignerState;
use crate::status::{Announcement, OriginState, OriginStatus};
use crate::track::{Polled, TrackWatcher};

/// How often the state is published when nothing but the newest segments changed.
const STATE_INTERVAL: Duration = Duration::from_secs(30);

/// What the shell must do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read a playlist; with an entity tag, only if it changed.
    FetchPlaylist {
        request: RequestId,
        uri: String,
        etag: Option<String>,
    },
    /// Read an object through the hasher.
    FetchObject {
        request: RequestId,
        uri: String,
        byte_range: Option<ByteRange>,
    },
    /// Stop reading this object: no answer is expected any more.
    CancelObject(RequestId),
    /// Tell that the origin lists an object.
    Announce(Announcement),
    /// Tell a statement.
    Tell(SignedStatement),
    /// How the origin does has changed.
    Origin(OriginStatus),
    /// What a restart needs has changed.
    State(SignerState),
}

/// What a request was for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Master,
    Poll(TrackIndex),
    Object(TrackIndex),
}

/// What the origin has turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Unknown,
    /// Only a media playlist.
    Media,
    /// A master playlist.
    Master,
}

/// Watches one origin.
#[derive(Debug)]
pub(crate) struct OriginWatcher {
    origin_uri: String,
    key: StatementKey,
    shape: Shape,
    tracks: Vec<TrackWatcher>,
    /// Everything that a restart needs; of the tracks that are watched, as of their last change.
    state: SignerState,
    state_published: Duration,
    state_changed: bool,
    next_request: u64,
    requests: BTreeMap<RequestId, Purpose>,
    commands: VecDeque<Command>,
    master: MasterPoll,
    status: OriginStatus,
}

impl OriginWatcher {
    pub(crate) fn new(
        origin_uri: String,
        key: StatementKey,
        state: SignerState,
        now: Duration,
    ) -> Self {
        let mut watcher = Self {
            origin_uri,
            key,
            shape: Shape::Unknown,
            tracks: Vec::new(),
            state,
            state_published: now,
            state_changed: false,
            next_request: 0,
            requests: BTreeMap::new(),
            commands: VecDeque::new(),
            master: MasterPoll::new(now),
            status: OriginStatus::default(),
        };
        watcher.advance(now);
        watcher
    }

    /// Returns the next thing to do.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let master = self.master_due();
        let tracks = self.tracks.iter().flat_map(|track| {
            [track.next_poll(), track.pipeline.next_start()]
                .into_iter()
                .flatten()
        });
        tracks.chain(master).min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.advance(now);
    }

    /// A playlist was read, or not.
    pub(crate) fn handle_playlist(
        &mut self,
        request: RequestId,
        answer: Result<PlaylistAnswer, FetchError>,
        now: Duration,
    ) {
        match self.requests.remove(&request) {
            Some(Purpose::Master) => self.master_answered(answer, now),
            Some(Purpose::Poll(index)) => {
                let polled = self
                    .track_mut(index)
                    .map_or(Polled::Fine, |track| track.polled(request, answer, now));
                match polled {
                    Polled::Fine => {}
                    Polled::Gone => self.master.soon(now),
                    Polled::Renumbered => self.state_changed = true,
                }
            }
            Some(Purpose::Object(_)) | None => {}
        }
        self.advance(now);
    }

    /// An object was read, or not.
    pub(crate) fn handle_object(
        &mut self,
        request: RequestId,
        result: Result<HashedObject, FetchError>,
        now: Duration,
    ) {
        if let Some(Purpose::Object(index)) = self.requests.remove(&request)
            && let Some(track) = self.track_mut(index)
        {
            let target = track.schedule.target();
            let outcome = match &result {
                Ok(hashed) => track
                    .pipeline
                    .fetched(request, Ok(hashed.clone()), target, now),
                Err(error) => track.pipeline.fetched(request, Err(error), target, now),
            };
            if let (Outcome::GivenUp(key), Err(error)) = (outcome, result) {
                track.given_up(key, OriginState::Unreachable, &error.to_string());
            }
        }
        self.advance(now);
    }

    /// Does everything that is due.
    fn advance(&mut self, now: Duration) {
        self.start_master(now);
        for at in 0..self.tracks.len() {
            self.start_poll(at, now);
            self.cancel_downloads(at);
            self.start_downloads(at, now);
            self.leave(at);
        }
        self.update_status(now);
        self.publish_state(now);
    }

    fn request(&mut self, purpose: Purpose) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, purpose);
        request
    }

    fn track_mut(&mut self, index: TrackIndex) -> Option<&mut TrackWatcher> {
        self.tracks
            .iter_mut()
            .find(|track| track.track.index == index)
    }

    fn start_poll(&mut self, at: usize, now: Duration) {
        if self.tracks[at].next_poll().is_none_or(|due| due > now) {
            return;
        }
        let request = self.request(Purpose::Poll(self.tracks[at].track.index));
        let track = &mut self.tracks[at];
        let etag = track.start_poll(request, now);
        let uri = track.track.uri.clone();
        self.commands
            .push_back(Command::FetchPlaylist { request, uri, etag });
    }

    fn cancel_downloads(&mut self, at: usize) {
        for request in self.tracks[at].pipeline.take_abandoned() {
            self.requests.remove(&request);
            self.commands.push_back(Command::CancelObject(request));
        }
    }

    fn start_downloads(&mut self, at: usize, now: Duration) {
        loop {
            let request = RequestId(self.next_request);
            let track = &mut self.tracks[at];
            let index = track.track.index;
            let Some((download, announcement)) = track.pipeline.start(request, now) else {
                return;
            };
            self.request(Purpose::Object(index));
            self.commands.extend(announcement.map(Command::Announce));
            let (uri, byte_range) = (download.uri, download.byte_range);
            self.commands.push_back(Command::FetchObject {
                request,
                uri,
                byte_range,
            });
        }
    }

    /// Signs what may leave.
    fn leave(&mut self, at: usize) {
        while let Some(statement) = self.tracks[at].pipeline.leave() {
            if let Statement::Object(descriptor) = &statement {
                self.tracks[at].described(descriptor);
            }
            let key = statement.as_object().map(|descriptor| descriptor.key);
            match SignedStatement::sign(statement, &self.key) {
                Ok(signed) => self.commands.push_back(Command::Tell(signed)),
                Err(error) => match key {
                    Some(key) => {
                        self.tracks[at].given_up(key, OriginState::Invalid, &explain(&error));
                    }
                    None => self.tracks[at].header_refused(&explain(&error)),
                },
            }
        }
    }

    // ---- the origin's own playlist --------------------------------------------------------------

    /// A media playlist that stands for itself is polled as a track.
    fn master_due(&self) -> Option<Duration> {
        self.master.due().filter(|_| self.shape != Shape::Media)
    }

    fn start_master(&mut self, now: Duration) {
        if self.master_due().is_none_or(|due| due > now) {
            return;
        }
        let request = self.request(Purpose::Master);
        self.master.sent(now);
        let uri = self.origin_uri.clone();
        self.commands.push_back(Command::FetchPlaylist {
            request,
            uri,
            etag: None,
        });
    }

    fn master_answered(&mut self, answer: Result<PlaylistAnswer, FetchError>, now: Duration) {
        let playlist = match answer {
            Ok(PlaylistAnswer::Body { text, uri, .. }) => hls::parse(&text, &uri)
                .map_err(|error| (OriginState::Invalid, format!("no usable playlist: {error}"))),
            Ok(PlaylistAnswer::NotModified) => Err((
                OriginState::Invalid,
                "not modified, though nothing was known".to_owned(),
            )),
            Err(error) => Err((OriginState::Unreachable, error.to_string())),
        };
        let result = playlist.and_then(|playlist| match (self.shape, playlist) {
            (Shape::Unknown, Playlist::Media(media)) => self.become_media(&media, now),
            (Shape::Unknown | Shape::Master, Playlist::Master(master)) => {
                self.become_master(&master, now)
            }
            (Shape::Media | Shape::Master, _) => Err((
                OriginState::Invalid,
                "no longer a master playlist".to_owned(),
            )),
        });
        match result {
            Ok(()) => self.master.read(now),
            Err((state, problem)) => self.master.failed(state, problem, now),
        }
    }

    fn become_media(
        &mut self,
        media: &hls::MediaPlaylist,
        now: Duration,
    ) -> Result<(), (OriginState, String)> {
        let track =
            names::only_track(&self.origin_uri, &mut self.state.tracks).ok_or_else(no_indices)?;
        self.tell_master(vec![track.clone()], String::new())?;
        self.shape = Shape::Media;
        let mut watcher = self.watch(track, now);
        // The answer at hand is the first poll's.
        let sent = self.master.sent_at().unwrap_or(now);
        watcher.schedule.sent(sent);
        watcher.read(media, sent, now);
        self.tracks = vec![watcher];
        Ok(())
    }

    fn become_master(
        &mut self,
        master: &MasterPlaylist,
        now: Duration,
    ) -> Result<(), (OriginState, String)> {
        let current: Vec<Track> = self
            .tracks
            .iter()
            .map(|track| track.track.clone())
            .collect();
        let tracks = names::assign(&master.tracks, &current, &mut self.state.tracks)
            .ok_or_else(no_indices)?;
        let names: Vec<&str> = tracks.iter().map(|track| track.name.as_str()).collect();
        let playlist = master.playlist(&names);
        self.tell_master(tracks.clone(), playlist)?;
        self.shape = Shape::Master;
        let mut before = std::mem::take(&mut self.tracks);
        for track in tracks {
            let held = before
                .iter()
                .position(|held| held.track.index == track.index);
            let watcher = match held {
                Some(at) => {
                    let mut held = before.swap_remove(at);
                    held.rename(track);
                    held
                }
                None => self.watch(track, now),
            };
            self.tracks.push(watcher);
        }
        for mut dropped in before {
            dropped.pipeline.clear();
            let abandoned = dropped.pipeline.take_abandoned();
            self.commands
                .extend(abandoned.into_iter().map(Command::CancelObject));
        }
        Ok(())
    }

    fn watch(&self, track: Track, now: Duration) -> TrackWatcher {
        let known = self
            .state
            .tracks
            .iter()
            .find(|state| state.index == track.index.0);
        let fresh = crate::state::TrackState {
            index: track.index.0,
            name: track.name.clone(),
            identity: track.uri.clone(),
            epoch: 0,
            segments: Vec::new(),
            inits: Vec::new(),
        };
        TrackWatcher::new(track, known.unwrap_or(&fresh), now)
    }

    /// Tells the master header, with a new revision if it says something new.
    fn tell_master(
        &mut self,
        tracks: Vec<Track>,
        playlist: String,
    ) -> Result<(), (OriginState, String)> {
        let (header, master) = master::header(self.state.master.as_ref(), tracks, playlist);
        let signed =
            SignedStatement::sign(Statement::Master(header), &self.key).map_err(|error| {
                (
                    OriginState::Invalid,
                    format!("the master playlist: {}", explain(&error)),
                )
            })?;
        self.commands.push_back(Command::Tell(signed));
        let master = Some(master);
        if self.state.master != master {
            self.state.master = master;
            self.state_changed = true;
        }
        Ok(())
    }

    // ---- what others are told -------------------------------------------------------------------

    fn update_status(&mut self, now: Duration) {
        let status = self.condition(now);
        if status != self.status {
            self.status = status.clone();
            self.commands.push_back(Command::Origin(status));
        }
    }

    /// Returns the worst of the tracks' conditions, or the master's while there are none.
    fn condition(&self, now: Duration) -> OriginStatus {
        if self.tracks.is_empty() {
            return self.master.problem().cloned().unwrap_or_default();
        }
        let conditions = self
            .tracks
            .iter()
            .map(|track| (track, track.condition(now)));
        let worst = conditions.max_by_key(|(_, status)| status.state.severity());
        let Some((track, mut status)) = worst else {
            return OriginStatus::default();
        };
        if self.tracks.len() > 1 && !status.problem.is_empty() {
            status.problem = format!("track {}: {}", track.track.name, status.problem);
        }
        status
    }

    /// Publishes the state when an epoch or the tracks changed, otherwise now and then.
    fn publish_state(&mut self, now: Duration) {
        let due = now.saturating_sub(self.state_published) >= STATE_INTERVAL;
        if !self.state_changed && !due {
            return;
        }
        for track in &self.tracks {
            let state = track.state();
            match self
                .state
                .tracks
                .iter_mut()
                .find(|held| held.index == state.index)
            {
                Some(held) => *held = state,
                None => self.state.tracks.push(state),
            }
        }
        self.state_changed = false;
        self.state_published = now;
        self.commands.push_back(Command::State(self.state.clone()));
    }
}

/// Says why a statement cannot be made, for a person.
fn explain(error: &SignError) -> String {
    match error {
        SignError::Invalid(invalid) => format!("it cannot be signed: {invalid}"),
        SignError::TooLong(_) => format!("it cannot be signed: {error}"),
    }
}

fn no_indices() -> (OriginState, String) {
    (
        OriginState::Invalid,
        "it has had more tracks than there are numbers".to_owned(),
    )
}
