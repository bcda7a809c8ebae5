//! The watcher against random origins: whatever they answer, and in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use espalier_media::{ObjectHasher, ObjectKey, ObjectKind, Statement, StatementKey};
use proptest::prelude::*;

use crate::fetch::{FetchError, PlaylistAnswer};
use crate::pipeline::RequestId;
use crate::state::SignerState;
use crate::watcher::{Command, OriginWatcher};

const ORIGIN: &str = "http://origin.example/live/index.m3u8";

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The origin lists so many more segments.
    List(u64),
    /// It starts numbering at this again, with other names.
    Renumber(u64),
    /// A poll is answered: truthfully, or not.
    AnswerPoll(Answer),
    /// The download with this place among those on their way ends, well or not.
    AnswerObject(usize, bool),
    /// So many milliseconds pass.
    Pass(u64),
}

#[derive(Debug, Clone)]
enum Answer {
    Truth,
    NotModified,
    Gone,
    Garbage,
    /// What was true this many changes ago.
    Old(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        8 => Just(Answer::Truth),
        1 => Just(Answer::NotModified),
        1 => Just(Answer::Gone),
        1 => Just(Answer::Garbage),
        1 => (0usize..4).prop_map(Answer::Old),
    ];
    prop_oneof![
        4 => (1u64..4).prop_map(Step::List),
        1 => (0u64..300).prop_map(Step::Renumber),
        6 => answer.prop_map(Step::AnswerPoll),
        6 => (0usize..4, prop::bool::weighted(0.8)).prop_map(|(at, well)| Step::AnswerObject(at, well)),
        6 => (1u64..2_000).prop_map(Step::Pass),
    ]
}

/// The origin, and the shell round the watcher.
struct World {
    watcher: OriginWatcher,
    now: Duration,
    generation: u32,
    listed: Vec<u64>,
    texts: Vec<String>,
    polls: Vec<RequestId>,
    objects: BTreeMap<RequestId, String>,
    told: Vec<ObjectKey>,
    fetched: BTreeMap<String, u32>,
    epochs: BTreeSet<u32>,
}

impl World {
    fn new() -> Self {
        let key = StatementKey::from_seed(&[3; 32]);
        let now = Duration::ZERO;
        let watcher = OriginWatcher::new(ORIGIN.to_owned(), key, SignerState::default(), now);
        let mut world = Self {
            watcher,
            now,
            generation: 0,
            listed: (0..4).collect(),
            texts: Vec::new(),
            polls: Vec::new(),
            objects: BTreeMap::new(),
            told: Vec::new(),
            fetched: BTreeMap::new(),
            epochs: BTreeSet::new(),
        };
        world.write();
        world.drain();
        world
    }

    fn write(&mut self) {
        let surplus = self.listed.len().saturating_sub(5);
        self.listed.drain(..surplus);
        let mut text = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{}\n",
            self.listed[0]
        );
        for number in &self.listed {
            let map = number / 10;
            text += &format!("#EXT-X-MAP:URI=\"{}-init{map}.mp4\"\n", self.generation);
            text += &format!("#EXTINF:2,\n{}-{number}.m4s\n", self.generation);
        }
        self.texts.push(text);
    }

    fn drain(&mut self) {
        while let Some(command) = self.watcher.poll_command() {
            match command {
                Command::FetchPlaylist { request, .. } => self.polls.push(request),
                Command::FetchObject { request, uri, .. } => {
                    *self.fetched.entry(uri.clone()).or_default() += 1;
                    self.objects.insert(request, uri);
                }
                Command::CancelObject(request) => {
                    self.objects.remove(&request);
                }
                Command::Tell(signed) => match signed.statement() {
                    Statement::Object(descriptor) => self.told.push(descriptor.key),
                    Statement::Track(header) => {
                        self.epochs.insert(header.epoch);
                    }
                    Statement::Master(_) => {}
                },
                Command::Announce(_) | Command::Origin(_) | Command::State(_) => {}
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::List(count) => {
                let next = self.listed.last().map_or(0, |last| last + 1);
                self.listed.extend(next..next + count);
                self.write();
            }
            Step::Renumber(first) => {
                self.generation += 1;
                self.listed = vec![first];
                self.write();
            }
            Step::AnswerPoll(answer) => self.answer_poll(&answer),
            Step::AnswerObject(at, well) => self.answer_object(at, well),
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
        }
        self.drain();
    }

    fn answer_poll(&mut self, answer: &Answer) {
        let Some(request) = self.polls.pop() else {
            return;
        };
        let body = |text: &str| {
            let text = Bytes::copy_from_slice(text.as_bytes());
            Ok(PlaylistAnswer::Body {
                text,
                uri: ORIGIN.to_owned(),
                etag: Some("e".to_owned()),
            })
        };
        let newest = self.texts.len() - 1;
        let answer = match answer {
            Answer::Truth => body(&self.texts[newest]),
            Answer::NotModified => Ok(PlaylistAnswer::NotModified),
            Answer::Gone => Err(FetchError::Status(404)),
            Answer::Garbage => body("<html>"),
            Answer::Old(ago) => body(&self.texts[newest.saturating_sub(*ago)]),
        };
        self.watcher.handle_playlist(request, answer, self.now);
    }

    fn answer_object(&mut self, at: usize, well: bool) {
        let Some(request) = self.objects.keys().nth(at).copied() else {
            return;
        };
        self.objects.remove(&request);
        let result = if well {
            Ok(ObjectHasher::new().finish())
        } else {
            Err(FetchError::Timeout)
        };
        self.watcher.handle_object(request, result, self.now);
    }

    /// Lets time pass as the shell does: from one timeout to the next.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.watcher.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.watcher.handle_timeout(self.now);
            self.drain();
            let next = self.watcher.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "a timeout that changes nothing"
            );
        }
        self.now = end;
    }

    fn check(&self) {
        let rising = self.told.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(rising, "statements out of order: {:?}", self.told);
        assert!(self.polls.len() <= 1, "two polls at once");
        assert!(self.objects.len() <= 3, "too many downloads at once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Statements leave in the order of their keys, each once; requests stay within their bounds.
    #[test]
    fn whatever_the_origin_does(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
    }

    /// Once the origin behaves, everything that it lists is signed, whatever was before.
    #[test]
    fn it_recovers(steps in proptest::collection::vec(step(), 0..100)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for _ in 0..40 {
            world.step(Step::List(1));
            for _ in 0..10 {
                world.step(Step::AnswerPoll(Answer::Truth));
                for _ in 0..4 {
                    world.step(Step::AnswerObject(0, true));
                }
                world.step(Step::Pass(200));
            }
        }
        world.check();
        let newest = world.told.iter().rev().find(|key| key.kind == ObjectKind::Segment);
        prop_assert_eq!(newest.map(|key| key.sequence), world.listed.last().copied());
    }

    /// A well-behaved origin's objects are read once each.
    #[test]
    fn each_object_is_read_once(counts in proptest::collection::vec(1u64..3, 1..60)) {
        let mut world = World::new();
        for count in counts {
            world.step(Step::List(count));
            for _ in 0..12 {
                world.step(Step::AnswerPoll(Answer::Truth));
                world.step(Step::AnswerObject(0, true));
                world.step(Step::Pass(200));
            }
        }
        prop_assert!(world.fetched.values().all(|count| *count == 1), "{:?}", world.fetched);
        prop_assert_eq!(world.epochs, BTreeSet::from([0]));
    }
}
