//! The trees of a channel, as `espalier channel tree --format json` prints them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The source that is no peer.
pub const CDN: &str = "cdn";

/// One peer's place in one track's tree.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The peer's id.
    pub peer: String,
    /// The track's name.
    pub track: String,
    /// A peer's id or "cdn"; empty or absent while it has none.
    #[serde(default)]
    pub source: Option<String>,
    /// A peer's id or "cdn".
    #[serde(default)]
    pub standby: Option<String>,
    /// 1 for a root.
    pub depth: u32,
    /// The ids of its children.
    pub children: Vec<String>,
    /// joining, active, moving, repairing, bypass.
    pub state: String,
}

/// All trees of a channel at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    places: Vec<Place>,
}

impl Tree {
    /// Reads the command's JSON.
    ///
    /// # Errors
    /// It does not keep the command's contract.
    pub fn parse(text: &str) -> Result<Self> {
        let places = serde_json::from_str(text).with_context(|| format!("channel tree: {text}"))?;
        Ok(Self { places })
    }

    /// Every place.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Every peer that has a place.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<&str> {
        self.places
            .iter()
            .map(|place| place.peer.as_str())
            .collect()
    }

    /// A peer's place in the first track that it has one in.
    #[must_use]
    pub fn place(&self, peer: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.peer == peer)
    }

    /// The peers that the CDN feeds.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<&str> {
        let roots = self
            .places
            .iter()
            .filter(|place| place.source.as_deref() == Some(CDN));
        roots.map(|place| place.peer.as_str()).collect()
    }

    /// The peers that the CDN feeds with this track.
    #[must_use]
    pub fn roots_of(&self, track: &str) -> BTreeSet<&str> {
        let fed = |place: &&Place| place.track == track && place.source.as_deref() == Some(CDN);
        self.places
            .iter()
            .filter(fed)
            .map(|place| place.peer.as_str())
            .collect()
    }

    /// The depth of the deepest place.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.places
            .iter()
            .map(|place| place.depth)
            .max()
            .unwrap_or(0)
    }

    /// Whether exactly these many peers have a place each and all are active.
    #[must_use]
    pub fn is_settled(&self, peers: usize) -> bool {
        self.peers().len() == peers && self.places.iter().all(|place| place.state == "active")
    }

    /// Everyone below a peer in its first track, nearest first; not the peer itself.
    #[must_use]
    pub fn descendants(&self, peer: &str) -> Vec<&str> {
        let Some(top) = self.place(peer) else {
            return Vec::new();
        };
        let in_track = self.places.iter().filter(|place| place.track == top.track);
        let by_peer: BTreeMap<&str, &Place> =
            in_track.map(|place| (place.peer.as_str(), place)).collect();
        let mut found: Vec<&str> = top.children.iter().map(String::as_str).collect();
        let mut next = 0;
        while let Some(child) = found.get(next).and_then(|peer| by_peer.get(peer)) {
            // A tree has no cycle; the bound keeps a broken one from holding the test up.
            if found.len() > by_peer.len() {
                break;
            }
            found.extend(child.children.iter().map(String::as_str));
            next += 1;
        }
        found
    }

    /// Every edge, as (track, child, source).
    #[must_use]
    pub fn edges<'a>(&'a self) -> BTreeSet<(&'a str, &'a str, &'a str)> {
        let edge = |place: &'a Place| {
            let source = place.source.as_deref().unwrap_or_default();
            (place.track.as_str(), place.peer.as_str(), source)
        };
        self.places.iter().map(edge).collect()
    }

    /// The trees as indented text, for logs.
    #[must_use]
    pub fn describe(&self) -> String {
        let line = |place: &Place| {
            format!(
                "  {} {} depth {} from {} standby {} children {} {}\n",
                place.peer,
                place.track,
                place.depth,
                place.source.as_deref().unwrap_or("-"),
                place.standby.as_deref().unwrap_or("-"),
                place.children.len(),
                place.state
            )
        };
        self.places.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;

    #[test]
    fn finds_descendants_and_roots() {
        let text = r#"[
            {"peer":"a","track":"main","source":"cdn","standby":null,"depth":1,"children":["b","c"],"state":"active"},
            {"peer":"b","track":"main","source":"a","standby":"c","depth":2,"children":["d"],"state":"active"},
            {"peer":"c","track":"main","source":"a","standby":"cdn","depth":2,"children":[],"state":"active"},
            {"peer":"d","track":"main","source":"b","standby":"cdn","depth":3,"children":[],"state":"moving"}
        ]"#;
        let tree = Tree::parse(text).unwrap();
        assert_eq!(tree.descendants("a"), ["b", "c", "d"]);
        assert_eq!(tree.descendants("d"), [] as [&str; 0]);
        assert_eq!(tree.descendants("unknown"), [] as [&str; 0]);
        assert_eq!(tree.roots().into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(tree.depth(), 3);
        assert!(!tree.is_settled(4));
        assert!(Tree::parse("{}").is_err());
    }
}
