//! Trees for Graphviz.

use std::fmt::Write;

use super::model::{Source, Topology, state_name, tree_name};

/// Makes a digraph: solid edges carry the stream, dashed ones are standbys.
pub(crate) fn dot(channel: &str, topology: &Topology) -> String {
    let mut out = format!(
        "digraph {} {{\n  rankdir=TB;\n  node [shape=box, style=rounded, fontname=monospace];\n  \
         cdn [shape=oval];\n",
        quoted(channel)
    );
    let striped = topology.striped();
    for node in &topology.nodes {
        let tree = tree_name(&node.track, node.stripe, &striped);
        let id = quoted(&format!("{tree}/{}", node.peer));
        let label = quoted(&format!("{}\n{tree} {}", node.peer, state_name(node.state)));
        let edges = [
            (&node.source, ""),
            (&node.standby, " [style=dashed, color=gray]"),
        ];
        line(&mut out, &format!("{id} [label={label}];"));
        for (source, style) in edges {
            match source {
                Some(Source::Cdn) => line(&mut out, &format!("cdn -> {id}{style};")),
                Some(Source::Peer(peer)) => {
                    let parent = quoted(&format!("{tree}/{peer}"));
                    line(&mut out, &format!("{parent} -> {id}{style};"));
                }
                None => {}
            }
        }
    }
    out.push('}');
    out
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "  {text}").expect("invariant: a String takes every text");
}

/// Names come from origins: they may hold anything.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::topology;
    use super::*;

    #[test]
    fn draws_sources_solid_and_standbys_dashed() {
        let mut topology = topology(&[("aa", "cdn"), ("bb", "aa")]);
        topology.nodes[0].standby = None;
        assert_eq!(
            dot("news", &topology),
            r#"digraph "news" {
  rankdir=TB;
  node [shape=box, style=rounded, fontname=monospace];
  cdn [shape=oval];
  "video/aa" [label="aa\nvideo active"];
  cdn -> "video/aa";
  "video/bb" [label="bb\nvideo active"];
  "video/aa" -> "video/bb";
  cdn -> "video/bb" [style=dashed, color=gray];
}"#
        );
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
    }
}
