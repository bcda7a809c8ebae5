//! One session, as its gateway knows it.

use std::collections::BTreeMap;

use crate::events::{SessionOpened, SourceReport};
use crate::ids::{Generation, TrackName};
use crate::link::message::{Attached, Change, Said};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) opened: SessionOpened,
    pub(super) proven: bool,
    /// An owner has been told of it.
    pub(super) asked: bool,
    /// The peer's last word on each of its sources.
    pub(super) sources: BTreeMap<(TrackName, u8), SourceReport>,
}

impl Session {
    /// Keeps what a later owner has to be told of the peer.
    pub(super) fn remember(&mut self, said: &Said) {
        match said {
            Said::Acknowledged(generation) => {
                let opened = &mut self.opened;
                opened.generation = opened.generation.max(Some(*generation));
            }
            Said::WantTracks(tracks) => {
                self.opened.tracks.clone_from(tracks);
                let wanted = |track: &TrackName| tracks.is_empty() || tracks.contains(track);
                self.sources.retain(|(track, _), _| wanted(track));
            }
            Said::Source(report) => {
                let mut held = self.opened.held.iter_mut();
                if let Some(held) =
                    held.find(|held| held.track == report.track && held.stripe == report.stripe)
                {
                    held.source = report.source;
                }
                let stripe = (report.track.clone(), report.stripe);
                self.sources.insert(stripe, report.clone());
            }
            Said::Profile(profile) => self.opened.profile = *profile,
            Said::Link(_) => {}
        }
    }

    /// Everything that an owner must know of this session.
    pub(super) fn say(&self) -> impl Iterator<Item = Change> + use<> {
        let mut session = self.opened.clone();
        if self.asked {
            // It is no newcomer, even if no assignment has reached it yet.
            session.generation.get_or_insert(Generation::default());
        }
        let attached = Attached {
            session,
            proven: self.proven,
            asked: self.asked,
        };
        let (peer, attachment) = (self.opened.peer, self.opened.attachment);
        let sources = self.sources.values().cloned().map(Said::Source);
        let sources: Vec<_> = sources
            .map(|said| Change::Said {
                peer,
                attachment,
                said,
            })
            .collect();
        core::iter::once(Change::Attached(attached)).chain(sources)
    }
}

/// What no later state repeats.
pub(super) fn is_moment(change: &Change) -> bool {
    match change {
        Change::Left { .. } => true,
        Change::Said { said, .. } => matches!(said, Said::Link(_)),
        Change::Attached(_) | Change::Detached { .. } => false,
    }
}
