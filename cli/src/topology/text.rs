//! Trees for people.

use std::fmt::Write;

use espalier_process::BitRate;
use espalier_proto::v1::{NodeState, PeerRole};

use super::forest::Forest;
use super::model::{PeerNode, Topology, role_name, state_name};

/// Makes the indented trees of `espalier channel tree`.
pub(crate) fn text(channel: &str, topology: &Topology) -> String {
    if topology.nodes.is_empty() {
        return format!("{channel}: nobody is here yet");
    }
    let forests = Forest::of(topology);
    forests
        .iter()
        .map(|forest| tree(channel, forest))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn tree(channel: &str, forest: &Forest<'_>) -> String {
    let depth = forest
        .placed
        .iter()
        .map(|line| line.node.depth)
        .max()
        .unwrap_or(0);
    let mut out = format!(
        "{channel}/{}: {} in the tree, depth {depth}",
        forest.name,
        count(forest.placed.len(), "peer"),
    );
    for line in &forest.placed {
        add(&mut out, &line.branch, line.node);
    }
    if !forest.unplaced.is_empty() {
        write!(
            out,
            "\nwithout a place: {}",
            count(forest.unplaced.len(), "peer")
        )
        .expect("invariant: a String takes every text");
        for node in &forest.unplaced {
            add(&mut out, "", node);
        }
    }
    out
}

fn add(out: &mut String, branch: &str, node: &PeerNode) {
    write!(out, "\n{branch}{}  {}", node.peer, describe(node))
        .expect("invariant: a String takes every text");
}

/// Says what matters about a peer, in one line.
fn describe(node: &PeerNode) -> String {
    let mut words = Vec::new();
    if node.state != NodeState::Active {
        words.push(state_name(node.state).to_owned());
    }
    words.push(match node.role {
        PeerRole::Consumer => role_name(node.role).to_owned(),
        PeerRole::Relay => format!(
            "relay, up {}",
            BitRate::from_bits_per_second(node.upload_bps)
        ),
        PeerRole::Unspecified | PeerRole::Contributor => {
            format!("up {}", BitRate::from_bits_per_second(node.upload_bps))
        }
    });
    if let Some(standby) = &node.standby {
        words.push(format!("standby {standby}"));
    }
    if let Some(health) = node.health {
        words.push(format!(
            "latency {}, buffer {}",
            seconds(health.latency_ms),
            seconds(health.buffer_ms)
        ));
        if health.stalls > 0 {
            words.push(format!("{} stalls", health.stalls));
        }
    }
    if !node.session {
        words.push("no session".to_owned());
    }
    words.join(", ")
}

fn seconds(milliseconds: u32) -> String {
    format!("{:.1}s", f64::from(milliseconds) / 1000.0)
}

/// Names a number of things.
pub(crate) fn count(number: usize, word: &str) -> String {
    if number == 1 {
        format!("1 {word}")
    } else {
        format!("{number} {word}s")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::topology;
    use super::super::model::{Health, Source};
    use super::*;

    #[test]
    fn a_tree_reads_well() {
        let mut topology = topology(&[("aa", "cdn"), ("bb", "aa"), ("cc", "bb"), ("dd", "")]);
        for (depth, node) in (1..).zip(&mut topology.nodes[..3]) {
            node.depth = depth;
        }
        topology.nodes[1].health = Some(Health {
            bytes_from_cdn: 0,
            bytes_from_peers: 9,
            buffer_ms: 5_900,
            latency_ms: 2_140,
            stalls: 2,
        });
        topology.nodes[2].role = PeerRole::Consumer;
        topology.nodes[2].standby = Some(Source::Peer("aa".into()));
        topology.nodes[3].state = NodeState::Joining;
        topology.nodes[3].standby = None;
        topology.nodes[3].session = false;
        assert_eq!(
            text("news", &topology),
            "news/video: 3 peers in the tree, depth 3\n\
             aa  up 20mbit, standby cdn\n\
             └─ bb  up 20mbit, standby cdn, latency 2.1s, buffer 5.9s, 2 stalls\n   \
                └─ cc  consumer, standby aa\n\
             without a place: 1 peer\n\
             dd  joining, up 20mbit, no session"
        );
    }

    #[test]
    fn an_empty_channel_says_so() {
        assert_eq!(
            text("news", &Topology::default()),
            "news: nobody is here yet"
        );
    }
}
