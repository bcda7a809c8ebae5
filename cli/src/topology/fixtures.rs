//! Trees for tests.

use espalier_proto::v1::{NodeState, PeerRole};

use super::model::{PeerNode, Source, Topology};

/// Makes a tree of one track from (peer, source); an empty source is none.
pub(crate) fn topology(edges: &[(&str, &str)]) -> Topology {
    let mut nodes: Vec<PeerNode> = edges
        .iter()
        .map(|(peer, source)| node(peer, source))
        .collect();
    for (child, parent) in edges {
        if let Some(parent) = nodes.iter_mut().find(|node| node.peer == *parent) {
            parent.children.push((*child).to_owned());
        }
    }
    Topology { nodes }
}

/// Makes a peer that takes the track `video` from `source`.
pub(crate) fn node(peer: &str, source: &str) -> PeerNode {
    PeerNode {
        peer: peer.to_owned(),
        stripe: 0,
        track: "video".to_owned(),
        source: match source {
            "" => None,
            "cdn" => Some(Source::Cdn),
            peer => Some(Source::Peer(peer.to_owned())),
        },
        standby: Some(Source::Cdn),
        depth: 0,
        children: Vec::new(),
        state: NodeState::Active,
        role: PeerRole::Contributor,
        upload_bps: 20_000_000,
        session: true,
        health: None,
    }
}
