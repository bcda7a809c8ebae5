//! What the node must know about this peer, whatever it heard before.
//!
//! Keeps the last state of each link and of each track's source, so that a new attachment can be told
//! all of them at once. Signals are moments, not states: they are not kept.

use std::collections::{BTreeMap, BTreeSet};

use espalier_proto::v1::{self, peer_message::Kind};

use super::SessionRequest;

/// The peer's current states, as last reported by its engine.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Acknowledged since the session was last opened.
    acknowledged: Option<v1::Generation>,
    links: BTreeMap<String, v1::LinkEvent>,
    /// By track and stripe.
    sources: BTreeMap<(String, u32), v1::SourceEvent>,
    tracks: Option<Vec<String>>,
}

impl Standing {
    /// Takes in a request and returns what to send for it while attached.
    pub(crate) fn absorb(&mut self, request: SessionRequest) -> Option<Kind> {
        match request {
            SessionRequest::Acknowledge(generation) => {
                self.acknowledged = Some(generation);
                Some(Kind::Acknowledge(v1::Acknowledge {
                    generation: Some(generation),
                }))
            }
            SessionRequest::Signal(signal) => Some(Kind::Signal(*signal)),
            SessionRequest::Link(event) => {
                self.links.insert(event.neighbour.clone(), event.clone());
                Some(Kind::LinkEvent(event))
            }
            SessionRequest::Source(event) => {
                let stripe = (event.track.clone(), event.stripe);
                self.sources.insert(stripe, event.clone());
                Some(Kind::SourceEvent(event))
            }
            SessionRequest::WantTracks(tracks) => {
                self.sources.retain(|(track, _), _| tracks.contains(track));
                self.tracks = Some(tracks.clone());
                Some(Kind::WantTracks(v1::WantTracks { tracks }))
            }
            SessionRequest::Neighbours(names) => {
                let named: BTreeSet<String> = names.into_iter().collect();
                self.links.retain(|neighbour, event| {
                    named.contains(neighbour) || event.state() == v1::LinkState::Up
                });
                None
            }
            SessionRequest::Leave => Some(Kind::Leave(v1::Leave {})),
        }
    }

    /// Begins a new attachment, whose Open says which assignment the peer holds.
    pub(crate) fn opening(&mut self) {
        self.acknowledged = None;
    }

    /// What a new attachment is told, after its Open was welcomed.
    pub(crate) fn current(&self) -> Vec<Kind> {
        let acknowledged = self.acknowledged.map(|generation| {
            Kind::Acknowledge(v1::Acknowledge {
                generation: Some(generation),
            })
        });
        let sources = self.sources.values().cloned().map(Kind::SourceEvent);
        let links = self.links.values().cloned().map(Kind::LinkEvent);
        acknowledged
            .into_iter()
            .chain(sources)
            .chain(links)
            .collect()
    }

    /// The tracks that the player asked for last, if it asked.
    pub(crate) fn tracks(&self) -> Option<&[String]> {
        self.tracks.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(neighbour: &str, state: v1::LinkState) -> SessionRequest {
        SessionRequest::Link(v1::LinkEvent {
            neighbour: neighbour.to_owned(),
            state: state.into(),
            detail: String::new(),
        })
    }

    fn source(track: &str, state: v1::SourceState) -> SessionRequest {
        SessionRequest::Source(v1::SourceEvent {
            track: track.to_owned(),
            stripe: 0,
            source: None,
            state: state.into(),
            generation: None,
        })
    }

    #[test]
    fn a_new_attachment_hears_the_last_state_of_each_link_and_source() {
        let mut standing = Standing::default();
        for request in [
            link("a", v1::LinkState::Up),
            link("a", v1::LinkState::Dead),
            link("b", v1::LinkState::Up),
            source("v0", v1::SourceState::Repairing),
            source("v0", v1::SourceState::Flowing),
        ] {
            assert!(standing.absorb(request).is_some());
        }
        let told = standing.current();
        assert_eq!(told.len(), 3);
        assert!(matches!(&told[0], Kind::SourceEvent(e) if e.state() == v1::SourceState::Flowing));
        assert!(matches!(&told[1], Kind::LinkEvent(e) if e.state() == v1::LinkState::Dead));
        assert!(matches!(&told[2], Kind::LinkEvent(e) if e.neighbour == "b"));
    }

    #[test]
    fn what_was_acknowledged_while_opening_is_told() {
        let mut standing = Standing::default();
        let generation = |index| v1::Generation {
            index,
            ..v1::Generation::default()
        };
        drop(standing.absorb(SessionRequest::Acknowledge(generation(1))));
        standing.opening();
        assert!(standing.current().is_empty());
        drop(standing.absorb(SessionRequest::Acknowledge(generation(2))));
        let told = standing.current();
        assert!(matches!(&told[..], [Kind::Acknowledge(a)] if a.generation == Some(generation(2))));
    }

    #[test]
    fn links_to_strangers_are_forgotten_unless_they_are_up() {
        let mut standing = Standing::default();
        drop(standing.absorb(link("gone", v1::LinkState::Dead)));
        drop(standing.absorb(link("up", v1::LinkState::Up)));
        drop(standing.absorb(link("named", v1::LinkState::Failed)));
        assert!(
            standing
                .absorb(SessionRequest::Neighbours(vec!["named".to_owned()]))
                .is_none()
        );
        let neighbours: Vec<_> = standing
            .current()
            .into_iter()
            .filter_map(|kind| match kind {
                Kind::LinkEvent(event) => Some(event.neighbour),
                Kind::Open(_)
                | Kind::Acknowledge(_)
                | Kind::Signal(_)
                | Kind::Report(_)
                | Kind::WantTracks(_)
                | Kind::Profile(_)
                | Kind::SourceEvent(_)
                | Kind::Leave(_) => None,
            })
            .collect();
        assert_eq!(neighbours, ["named", "up"]);
    }

    #[test]
    fn signals_are_sent_and_not_kept() {
        let mut standing = Standing::default();
        assert!(
            standing
                .absorb(SessionRequest::Signal(Box::default()))
                .is_some()
        );
        assert!(standing.current().is_empty());
    }

    #[test]
    fn sources_of_unwanted_tracks_are_forgotten() {
        let mut standing = Standing::default();
        drop(standing.absorb(source("v0", v1::SourceState::Flowing)));
        drop(standing.absorb(SessionRequest::WantTracks(vec!["v1".to_owned()])));
        assert!(standing.current().is_empty());
        assert_eq!(standing.tracks(), Some(&["v1".to_owned()][..]));
    }
}
