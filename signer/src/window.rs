//! The current statements of a channel: its headers, and the descriptors of the segments that the
//! origin lists now.
//!
//! Invariant: at most one statement per key is held, the first that came; at most
//! [`MAX_WINDOW`] segments per track, and the init sections that they need.

use std::collections::BTreeMap;

use espalier_media::{
    Descriptor, ObjectKey, ObjectKind, SignedStatement, Statement, TrackHeader, TrackIndex,
};

/// The most segments per track that a window holds, whatever the origin lists.
pub const MAX_WINDOW: usize = 1_024;

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is new, and part of the window.
    New,
    /// It is here already, in the same bytes.
    Duplicate,
    /// Another statement about the same thing is here already; that one stays.
    Conflict,
    /// It is older than the window.
    Stale,
}

/// The current statements of a channel.
#[derive(Debug, Default)]
pub struct StatementWindow {
    master: Option<SignedStatement>,
    tracks: BTreeMap<TrackIndex, TrackWindow>,
    /// Counts insertions: the order of a snapshot.
    next: u64,
}

#[derive(Debug, Default)]
struct TrackWindow {
    header: Option<(u64, SignedStatement)>,
    objects: BTreeMap<ObjectKey, (u64, SignedStatement)>,
}

impl StatementWindow {
    /// Takes a statement.
    pub fn insert(&mut self, statement: SignedStatement) -> Inserted {
        let order = self.next;
        self.next += 1;
        let shared = statement.shared_statement();
        match shared.as_ref() {
            Statement::Master(_) => self.insert_master(statement),
            Statement::Track(header) => self
                .tracks
                .entry(header.track)
                .or_default()
                .insert_header(order, statement, header),
            Statement::Object(descriptor) => {
                let track = self.tracks.entry(descriptor.key.track).or_default();
                track.insert_object(order, statement, descriptor)
            }
        }
    }

    /// Returns every current statement: the master header, the track headers, then the descriptors in
    /// the order in which they came.
    #[must_use]
    pub fn snapshot(&self) -> Vec<SignedStatement> {
        let headers = self
            .tracks
            .values()
            .filter_map(|track| track.header.as_ref());
        let mut objects: Vec<_> = self
            .tracks
            .values()
            .flat_map(|track| track.objects.values())
            .collect();
        objects.sort_by_key(|(order, _)| *order);
        let tracks = headers.chain(objects).map(|(_, statement)| statement);
        self.master.iter().chain(tracks).cloned().collect()
    }

    /// Returns the current master header's statement.
    #[must_use]
    pub fn master(&self) -> Option<&SignedStatement> {
        self.master.as_ref()
    }

    fn insert_master(&mut self, statement: SignedStatement) -> Inserted {
        let revision = |statement: &SignedStatement| match statement.statement() {
            Statement::Master(master) => master.revision,
            Statement::Track(_) | Statement::Object(_) => 0,
        };
        if let Some(held) = &self.master {
            match revision(&statement).cmp(&revision(held)) {
                std::cmp::Ordering::Less => return Inserted::Stale,
                std::cmp::Ordering::Equal => return same(held, &statement),
                std::cmp::Ordering::Greater => {}
            }
        }
        if let Statement::Master(master) = statement.statement() {
            self.tracks
                .retain(|index, _| master.track(*index).is_some());
        }
        self.master = Some(statement);
        Inserted::New
    }
}

impl TrackWindow {
    fn held_header(&self) -> Option<&TrackHeader> {
        match self.header.as_ref()?.1.statement() {
            Statement::Track(header) => Some(header),
            Statement::Master(_) | Statement::Object(_) => None,
        }
    }

    fn insert_header(
        &mut self,
        order: u64,
        statement: SignedStatement,
        header: &TrackHeader,
    ) -> Inserted {
        if let (Some(held), Some((_, signed))) = (self.held_header(), &self.header) {
            if held.supersedes(header) {
                return Inserted::Stale;
            }
            if !header.supersedes(held) {
                return same(signed, &statement);
            }
        }
        self.header = Some((order, statement));
        self.objects.retain(|key, _| key.epoch >= header.epoch);
        self.trim();
        Inserted::New
    }

    fn insert_object(
        &mut self,
        order: u64,
        statement: SignedStatement,
        descriptor: &Descriptor,
    ) -> Inserted {
        let key = descriptor.key;
        if let Some((_, held)) = self.objects.get(&key) {
            return same(held, &statement);
        }
        if self
            .held_header()
            .is_some_and(|header| key.epoch < header.epoch)
        {
            return Inserted::Stale;
        }
        self.objects.insert(key, (order, statement));
        self.trim();
        if self.objects.contains_key(&key) {
            Inserted::New
        } else {
            Inserted::Stale
        }
    }

    /// Drops the segments that have slid out, and the init sections that only they needed.
    fn trim(&mut self) {
        let window = self
            .held_header()
            .map_or(MAX_WINDOW, |header| match header.window_segments {
                0 => MAX_WINDOW,
                window => usize::try_from(window)
                    .unwrap_or(MAX_WINDOW)
                    .min(MAX_WINDOW),
            });
        let segments = self
            .objects
            .keys()
            .filter(|key| key.kind == ObjectKind::Segment);
        let Some(oldest) = segments.rev().take(window).last().copied() else {
            return;
        };
        let oldest_init = self.objects[&oldest]
            .1
            .statement()
            .as_object()
            .and_then(Descriptor::init_key);
        self.objects.retain(|key, _| {
            let kept_init = key.kind == ObjectKind::Init
                && oldest_init.is_some_and(|init| *key >= init.min(oldest));
            *key >= oldest || kept_init
        });
    }
}

fn same(held: &SignedStatement, other: &SignedStatement) -> Inserted {
    if held.payload() == other.payload() {
        Inserted::Duplicate
    } else {
        Inserted::Conflict
    }
}
