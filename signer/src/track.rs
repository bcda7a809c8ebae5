//! Watches one media playlist.
//!
//! Purpose: from the playlists that were read, find what is new, put it into the pipeline, and say
//! how the track does. When to read is the schedule's business, whether the numbering goes on the
//! numbering's.
//!
//! Invariant: within an epoch, sequence numbers enter the pipeline in rising order, each once.

use std::collections::BTreeSet;
use std::time::Duration;

use espalier_media::hls::{self, MediaPlaylist, PlaylistError, Segment};
use espalier_media::{Descriptor, ObjectKey, ObjectKind, Track, TrackHeader};

use crate::fetch::{FetchError, PlaylistAnswer};
use crate::inits::InitRuns;
use crate::numbering::{Continuation, Numbering};
use crate::pipeline::{Listed, Pipeline, RequestId};
use crate::rhythm::PollSchedule;
use crate::state::TrackState;
use crate::status::{OriginState, OriginStatus};
use crate::window::MAX_WINDOW;

/// How many of the segments listed are signed at a start while the origin is live.
const START_WINDOW: usize = 12;
/// Below this target duration, conditional requests are not used: servers make entity tags of a file
/// of its size and the second of its change, and a playlist may change twice in one.
const CONDITIONAL_FROM: Duration = Duration::from_secs(2);
/// How many failed polls in a row make a state.
const FAILURES: u32 = 2;

/// One media playlist and what it lists.
#[derive(Debug)]
pub(crate) struct TrackWatcher {
    pub(crate) track: Track,
    identity: String,
    epoch: u32,
    pub(crate) pipeline: Pipeline,
    pub(crate) schedule: PollSchedule,
    numbering: Numbering,
    inits: InitRuns,
    /// The poll that is on its way, and when it was sent.
    poll: Option<(RequestId, Duration)>,
    etag: Option<String>,
    /// The last header put into the pipeline.
    header: Option<TrackHeader>,
    /// The most segments that the origin listed at once in this epoch.
    window: u32,
    newest: Option<u64>,
    ended: bool,
    /// The date ranges of the last playlist.
    date_ranges: BTreeSet<String>,
    /// What is wrong with the polls, and for how many in a row.
    failing: Option<(u32, OriginStatus)>,
    /// What is wrong with an object.
    object_problem: Option<OriginStatus>,
    /// What is wrong with the header: peers cannot play without it.
    header_problem: Option<OriginStatus>,
}

/// What the origin's watcher must know of a poll's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It was read, or will be asked for again.
    Fine,
    /// The origin says that there is no such playlist.
    Gone,
    /// The numbering started anew.
    Renumbered,
}

impl TrackWatcher {
    pub(crate) fn new(track: Track, known: &TrackState, now: Duration) -> Self {
        Self {
            track,
            identity: known.identity.clone(),
            epoch: known.epoch,
            pipeline: Pipeline::default(),
            schedule: PollSchedule::new(now),
            numbering: Numbering::resume(known.segments.clone()),
            inits: InitRuns::resume(known.inits.clone()),
            poll: None,
            etag: None,
            header: None,
            window: 0,
            newest: None,
            ended: false,
            date_ranges: BTreeSet::new(),
            failing: None,
            object_problem: None,
            header_problem: None,
        }
    }

    /// Returns what a restart needs of it.
    pub(crate) fn state(&self) -> TrackState {
        TrackState {
            index: self.track.index.0,
            name: self.track.name.clone(),
            identity: self.identity.clone(),
            epoch: self.epoch,
            segments: self.numbering.remembered(),
            inits: self.inits.remembered(),
        }
    }

    /// The master playlist names it differently now.
    pub(crate) fn rename(&mut self, track: Track) {
        if self.track.uri != track.uri {
            self.etag = None;
        }
        self.track = track;
    }

    /// Returns when to poll; `None` while a poll is on its way.
    pub(crate) fn next_poll(&self) -> Option<Duration> {
        self.poll.is_none().then(|| self.schedule.next())
    }

    /// Sends a poll; returns the entity tag to ask with.
    pub(crate) fn start_poll(&mut self, request: RequestId, now: Duration) -> Option<String> {
        self.poll = Some((request, now));
        // Once a segment is late, an entity tag that stayed the same is no proof.
        let trusted = self.schedule.target() >= CONDITIONAL_FROM && !self.schedule.is_late(now);
        self.schedule.sent(now);
        self.etag.clone().filter(|_| trusted)
    }

    /// A poll was answered.
    pub(crate) fn polled(
        &mut self,
        request: RequestId,
        answer: Result<PlaylistAnswer, FetchError>,
        now: Duration,
    ) -> Polled {
        let Some((_, sent)) = self.poll.take_if(|(waiting, _)| *waiting == request) else {
            return Polled::Fine;
        };
        match answer {
            Ok(PlaylistAnswer::NotModified) => {
                self.unchanged(sent, now);
                Polled::Fine
            }
            Ok(PlaylistAnswer::Body { text, uri, etag }) => {
                match hls::parse_media_playlist(&text, &uri) {
                    Ok(playlist) => {
                        self.etag = etag;
                        self.read(&playlist, sent, now)
                    }
                    Err(error) => self.invalid(&error, now),
                }
            }
            Err(error) => {
                self.failed(OriginState::Unreachable, error.to_string(), now);
                if error.is_gone() {
                    Polled::Gone
                } else {
                    Polled::Fine
                }
            }
        }
    }

    /// A playlist was read that was asked for at `sent`.
    pub(crate) fn read(
        &mut self,
        playlist: &MediaPlaylist,
        sent: Duration,
        now: Duration,
    ) -> Polled {
        match self.numbering.judge(playlist, now) {
            Continuation::Same => {
                self.go_on(playlist, sent, now);
                Polled::Fine
            }
            Continuation::Doubtful { last, newest } => {
                self.etag = None;
                let problem = format!("the playlist went back from segment {newest} to {last}");
                self.count_failure(OriginState::Invalid, problem);
                self.schedule.doubtful(now);
                Polled::Fine
            }
            Continuation::Renumbered => {
                self.start_epoch();
                self.numbering.judge(playlist, now);
                self.go_on(playlist, sent, now);
                Polled::Renumbered
            }
        }
    }

    /// An object of it was read and described.
    pub(crate) fn described(&mut self, descriptor: &Descriptor) {
        self.object_problem = None;
        if descriptor.key.kind == ObjectKind::Init {
            self.inits.read(descriptor);
        }
    }

    /// An object of it is given up.
    pub(crate) fn given_up(&mut self, key: ObjectKey, state: OriginState, problem: &str) {
        if key.kind == ObjectKind::Init {
            self.inits.give_up(key.sequence);
        }
        let problem = format!("{} {}: {problem}", kind_name(key.kind), key.sequence);
        self.object_problem = Some(OriginStatus { state, problem });
    }

    /// Its header cannot be signed.
    pub(crate) fn header_refused(&mut self, problem: &str) {
        let problem = format!("the playlist's own tags: {problem}");
        self.header_problem = Some(OriginStatus {
            state: OriginState::Invalid,
            problem,
        });
    }

    /// Returns how it does.
    pub(crate) fn condition(&self, now: Duration) -> OriginStatus {
        let state = |state, problem: String| OriginStatus { state, problem };
        let failing = self
            .failing
            .as_ref()
            .filter(|(count, _)| *count >= FAILURES);
        if let Some((_, failing)) = failing {
            return failing.clone();
        }
        if let Some(problem) = self
            .header_problem
            .as_ref()
            .or(self.object_problem.as_ref())
        {
            return problem.clone();
        }
        let Some(newest) = self.newest else {
            return OriginStatus::default();
        };
        if self.ended {
            state(OriginState::Ended, String::new())
        } else if self.schedule.is_frozen(now) {
            state(
                OriginState::Frozen,
                format!("no new segment since {newest}"),
            )
        } else {
            state(OriginState::Live, String::new())
        }
    }

    fn unchanged(&mut self, sent: Duration, now: Duration) {
        self.failing = None;
        if self.ended {
            self.schedule.ended(now);
        } else {
            self.schedule.unchanged(sent, now);
        }
    }

    fn invalid(&mut self, error: &PlaylistError, now: Duration) -> Polled {
        self.failed(
            OriginState::Invalid,
            format!("the playlist cannot be used: {error}"),
            now,
        );
        Polled::Fine
    }

    fn failed(&mut self, state: OriginState, problem: String, now: Duration) {
        self.etag = None;
        self.count_failure(state, problem);
        self.schedule.failed(now);
    }

    fn count_failure(&mut self, state: OriginState, problem: String) {
        let count = self.failing.take().map_or(0, |(count, _)| count);
        self.failing = Some((count.saturating_add(1), OriginStatus { state, problem }));
    }

    fn start_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.numbering = Numbering::default();
        self.inits = InitRuns::default();
        self.pipeline.clear();
        self.schedule.forget();
        (self.header, self.newest, self.window, self.ended) = (None, None, 0, false);
        self.date_ranges.clear();
    }

    /// Puts what is new into the pipeline, and plans the next poll.
    fn go_on(&mut self, playlist: &MediaPlaylist, sent: Duration, now: Duration) {
        self.failing = None;
        self.ended = playlist.ended;
        let late_lines = self.late_date_ranges(playlist);
        let new = self.new_segments(playlist);
        let durations: Vec<Duration> = new.iter().map(|segment| segment.duration).collect();
        self.update_header(playlist, new.first().map(|segment| segment.sequence));
        for (index, segment) in new.iter().enumerate() {
            let mut segment = segment.clone();
            if index == 0 {
                segment.lines.splice(0..0, late_lines.iter().cloned());
            }
            self.list(segment);
        }
        if !durations.is_empty() {
            self.schedule
                .found(playlist.target_duration, &durations, sent, now);
        }
        if playlist.ended {
            self.schedule.ended(now);
        } else if durations.is_empty() {
            self.schedule.unchanged(sent, now);
        }
    }

    /// Finds the segments not listed before; at a start not more of them than a live viewer needs.
    fn new_segments<'a>(&self, playlist: &'a MediaPlaylist) -> &'a [Segment] {
        let segments = &playlist.segments;
        let Some(newest) = self.newest else {
            let window = if playlist.ended {
                MAX_WINDOW
            } else {
                START_WINDOW
            };
            return &segments[segments.len().saturating_sub(window)..];
        };
        &segments[segments.partition_point(|segment| segment.sequence <= newest)..]
    }

    /// Puts a header into the pipeline if what it says has changed. Between two segments nothing but
    /// the end can change it, so that a header is known by the first segment that it covers.
    fn update_header(&mut self, playlist: &MediaPlaylist, first_new: Option<u64>) {
        let listed = u32::try_from(playlist.segments.len()).unwrap_or(u32::MAX);
        self.window = self.window.max(listed);
        let ended_now = playlist.ended
            && self
                .header
                .as_ref()
                .is_some_and(|held| held.end_sequence.is_none());
        let from = match (first_new, &self.header) {
            (Some(first), _) => first,
            (None, Some(held)) if ended_now => held.from_sequence.max(self.newest.unwrap_or(0)),
            (None, _) => return,
        };
        let header = playlist.header(self.track.index, self.epoch, from, self.window);
        let covered = |held: &TrackHeader| TrackHeader {
            from_sequence: from,
            ..held.clone()
        };
        if self.header.as_ref().map(covered).as_ref() != Some(&header) {
            self.pipeline.header(header.clone());
            self.header_problem = None;
            self.header = Some(header);
        }
    }

    fn list(&mut self, segment: Segment) {
        let (index, epoch, sequence) = (self.track.index, self.epoch, segment.sequence);
        let need = segment
            .init
            .as_ref()
            .map(|init| (init, self.inits.need(sequence, init)));
        let init_sequence = need.as_ref().map(|(_, need)| need.sequence);
        if let Some((init, need)) = need
            && need.new
        {
            let key = ObjectKey::init(index, epoch, need.sequence);
            self.pipeline
                .object(key, Listed::Init(init.clone()), need.read);
        }
        let key = ObjectKey::segment(index, epoch, sequence);
        self.pipeline.object(
            key,
            Listed::Segment {
                segment,
                init_sequence,
            },
            None,
        );
        self.newest = Some(sequence);
    }

    /// Finds date ranges that the origin wrote only now, on a segment that was listed before: the
    /// next new segment carries them.
    fn late_date_ranges(&mut self, playlist: &MediaPlaylist) -> Vec<String> {
        let is_date_range = |line: &&String| line.starts_with("#EXT-X-DATERANGE:");
        let of = |segment: &Segment| {
            segment
                .lines
                .iter()
                .filter(is_date_range)
                .cloned()
                .collect::<Vec<_>>()
        };
        let known = playlist
            .segments
            .iter()
            .filter(|segment| self.newest.is_some_and(|newest| segment.sequence <= newest));
        let late = known
            .flat_map(of)
            .filter(|line| !self.date_ranges.contains(line))
            .collect();
        self.date_ranges = playlist.segments.iter().flat_map(of).collect();
        late
    }
}

fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Init => "the init section of segment",
        ObjectKind::Part => "a part of segment",
        ObjectKind::Segment => "segment",
    }
}
