//! The nodes that this peer knows, and which of them it goes to.
//!
//! The peer stays with a node for as long as that serves it, and goes on to another after a loss: to each of
//! them in turn, in an order of its own, so that an audience that lost a node spreads over the others. What
//! nodes say of each other adds to what the peer was started with and never replaces it.

use std::path::PathBuf;

use rand::seq::SliceRandom as _;
use tonic::transport::Endpoint;

use crate::endpoint::{self, EndpointError};

/// Most nodes that are kept of what a node says.
const MOST_LEARNED: usize = 32;

/// The nodes, and the one to go to now.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    /// Those that the peer was started with.
    configured: Vec<(String, Endpoint)>,
    /// Those that nodes named, in an order of this peer's own.
    learned: Vec<(String, Endpoint)>,
    at: usize,
    authorities: Option<PathBuf>,
}

impl Endpoints {
    /// Knows these nodes and goes to the first.
    ///
    /// # Errors
    /// One of them cannot be dialled, or there is none.
    pub(crate) fn new(
        uris: &[String],
        authorities: Option<PathBuf>,
    ) -> Result<Self, EndpointError> {
        let parse = |uri: &String| {
            let endpoint = endpoint::parse(uri, authorities.as_deref())?;
            Ok((uri.clone(), endpoint))
        };
        let configured: Vec<_> = uris.iter().map(parse).collect::<Result<_, _>>()?;
        if configured.is_empty() {
            return Err(EndpointError::Uri(String::new()));
        }
        Ok(Self {
            configured,
            learned: Vec::new(),
            at: 0,
            authorities,
        })
    }

    /// The node to go to now.
    pub(crate) fn current(&self) -> &Endpoint {
        let (_, endpoint) = self.all().nth(self.at).unwrap_or(&self.configured[0]);
        endpoint
    }

    /// The node of now and the one that comes after it, if there is another.
    pub(crate) fn nearest(&self) -> Vec<Endpoint> {
        let from_here = self.all().cycle().skip(self.at);
        let nearest = from_here.take(self.all().count().min(2));
        nearest.map(|(_, endpoint)| endpoint.clone()).collect()
    }

    /// Goes on to the next node; returns whether it is another.
    pub(crate) fn advance(&mut self) -> bool {
        let count = self.all().count();
        self.at = (self.at + 1) % count;
        count > 1
    }

    /// Whether there is another node than the one of now.
    pub(crate) fn has_others(&self) -> bool {
        self.all().count() > 1
    }

    /// Takes in what the node of now says of the cluster's nodes. Nobody is talked out of TLS.
    pub(crate) fn learn(&mut self, uris: &[String]) {
        let current = self.all().nth(self.at).map(|(uri, _)| uri.clone());
        let current = current.unwrap_or_default();
        let safe = self.configured.iter().all(|(uri, _)| is_safe(uri));
        let mut learned: Vec<(String, Endpoint)> = Vec::new();
        for uri in uris.iter().take(MOST_LEARNED) {
            let known = self.configured.iter().chain(&learned);
            if same_as_one_of(known, uri) || !may_learn(uri, safe) {
                continue;
            }
            match endpoint::parse(uri, self.authorities.as_deref()) {
                Ok(endpoint) => learned.push((uri.clone(), endpoint)),
                Err(error) => {
                    tracing::debug!(uri, %error, "a node's name for another is of no use")
                }
            }
        }
        learned.shuffle(&mut rand::rng());
        // The one that serves the peer is kept even if nobody names it any more.
        let stays = self.learned.drain(..).find(|(uri, _)| *uri == current);
        if let Some(stays) = stays.filter(|(uri, _)| !same_as_one_of(learned.iter(), uri)) {
            learned.push(stays);
        }
        self.learned = learned;
        let at = self.all().position(|(uri, _)| *uri == current);
        self.at = at.unwrap_or(0);
    }

    fn all(&self) -> impl Iterator<Item = &(String, Endpoint)> + Clone {
        self.configured.iter().chain(&self.learned)
    }
}

fn is_safe(uri: &str) -> bool {
    uri.starts_with("https://")
}

/// A peer that was started with TLS everywhere goes nowhere without it.
fn may_learn(uri: &str, safe: bool) -> bool {
    !safe || is_safe(uri)
}

/// Two ways to write one address are one node.
fn same_as_one_of<'a>(mut known: impl Iterator<Item = &'a (String, Endpoint)>, uri: &str) -> bool {
    let plain = |uri: &str| uri.trim_end_matches('/').to_ascii_lowercase();
    known.any(|(other, _)| plain(other) == plain(uri))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn uris(uris: &[&str]) -> Vec<String> {
        uris.iter().map(|uri| (*uri).to_owned()).collect()
    }

    /// The nodes in the order in which the peer goes to them, from the one of now.
    fn round(endpoints: &mut Endpoints) -> Vec<String> {
        let count = endpoints.all().count();
        let one = |endpoints: &mut Endpoints| {
            let uri = endpoints.current().uri().to_string();
            endpoints.advance();
            uri.trim_end_matches('/').to_owned()
        };
        (0..count).map(|_| one(endpoints)).collect()
    }

    #[test]
    fn a_peer_goes_round_all_nodes_that_it_knows() {
        let mut endpoints = Endpoints::new(&uris(&["http://a:1", "http://b:1"]), None).unwrap();
        assert_eq!(round(&mut endpoints), ["http://a:1", "http://b:1"]);
        assert!(endpoints.advance());
        endpoints.learn(&uris(&[
            "http://c:1",
            "http://B:1/",
            "nonsense",
            "http://d:1",
            "http://c:1",
        ]));
        let order = round(&mut endpoints);
        assert_eq!(order[0], "http://b:1", "it stays where it is");
        let all: BTreeSet<_> = order.iter().map(String::as_str).collect();
        let expect = ["http://a:1", "http://b:1", "http://c:1", "http://d:1"];
        assert_eq!(all, BTreeSet::from(expect));
        assert_eq!(order.len(), 4);
    }

    #[test]
    fn the_node_of_now_stays_known_and_those_of_the_start_do() {
        let mut endpoints = Endpoints::new(&uris(&["http://a:1"]), None).unwrap();
        assert!(!endpoints.has_others() && !endpoints.advance());
        endpoints.learn(&uris(&["http://c:1"]));
        assert!(endpoints.advance());
        endpoints.learn(&uris(&["http://d:1"]));
        let order = round(&mut endpoints);
        assert_eq!(order[0], "http://c:1");
        assert_eq!(order.len(), 3);
        endpoints.advance();
        endpoints.learn(&[]);
        assert!(round(&mut endpoints).contains(&"http://a:1".to_owned()));
    }

    #[test]
    fn nobody_is_talked_out_of_tls() {
        for (uri, safe, expect) in [
            ("http://b:1", true, false),
            ("https://b:1", true, true),
            ("http://b:1", false, true),
            ("https://b:1", false, true),
        ] {
            assert_eq!(may_learn(uri, safe), expect, "{uri} {safe}");
        }
        assert!(Endpoints::new(&[], None).is_err());
    }
}
