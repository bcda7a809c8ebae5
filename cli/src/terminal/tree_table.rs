//! Trees as a table with a row for each peer.

use espalier_process::BitRate;
use espalier_proto::v1::{NodeState, PeerRole};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use crate::topology::{Forest, PeerNode, Source, Topology, state_name};

/// As many digits of an id as people can tell apart.
const SHORT_ID: usize = 8;

/// Draws the trees from the row `scroll` on, and pulls `scroll` back to where there are rows.
pub(crate) fn draw(frame: &mut Frame<'_>, area: Rect, topology: &Topology, scroll: &mut u16) {
    let rows = rows(topology);
    let visible = usize::from(area.height.saturating_sub(1));
    let furthest = u16::try_from(rows.len().saturating_sub(visible)).unwrap_or(u16::MAX);
    *scroll = (*scroll).min(furthest);
    let widths = [
        Constraint::Min(22),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let head = Row::new([
        "PEER", "STATE", "SOURCE", "STANDBY", "UPLOAD", "LATENCY", "BUFFER", "STALLS", "CDN",
        "PEERS",
    ])
    .style(Style::new().add_modifier(Modifier::DIM));
    let table = Table::new(rows.into_iter().skip(usize::from(*scroll)), widths).header(head);
    frame.render_widget(table, area);
}

fn rows(topology: &Topology) -> Vec<Row<'static>> {
    let forests = Forest::of(topology);
    let mut rows = Vec::new();
    for forest in &forests {
        if forests.len() > 1 {
            rows.push(Row::new([Cell::from(forest.name.clone().bold())]));
        }
        rows.extend(
            forest
                .placed
                .iter()
                .map(|line| row(&line.branch, line.node)),
        );
        rows.extend(forest.unplaced.iter().map(|node| row("· ", node)));
    }
    rows
}

fn row(branch: &str, node: &PeerNode) -> Row<'static> {
    let source_style = match node.source {
        Some(Source::Cdn) => Style::new().fg(Color::Yellow),
        Some(Source::Peer(_)) => Style::new().fg(Color::Green),
        None => Style::new().fg(Color::DarkGray),
    };
    let name = Line::from(vec![
        Span::styled(branch.to_owned(), Style::new().fg(Color::DarkGray)),
        Span::styled(short(&node.peer), source_style.add_modifier(Modifier::BOLD)),
    ]);
    let health = |value: fn(&crate::topology::Health) -> String| {
        node.health.as_ref().map_or_else(String::new, value)
    };
    let stalls = node.health.map_or(0, |health| health.stalls);
    Row::new([
        Cell::from(name),
        Cell::from(state(node)),
        Cell::from(Span::styled(place(node.source.as_ref()), source_style)),
        Cell::from(place(node.standby.as_ref()).dark_gray()),
        Cell::from(upload(node)),
        Cell::from(health(|h| seconds(h.latency_ms))),
        Cell::from(health(|h| seconds(h.buffer_ms))),
        Cell::from(Span::styled(
            health(|h| h.stalls.to_string()),
            if stalls > 0 {
                Style::new().fg(Color::Red)
            } else {
                Style::new()
            },
        )),
        Cell::from(health(|h| bytes(h.bytes_from_cdn))),
        Cell::from(health(|h| bytes(h.bytes_from_peers))),
    ])
}

fn state(node: &PeerNode) -> Span<'static> {
    let colour = match node.state {
        NodeState::Active => Color::Green,
        NodeState::Unspecified | NodeState::Joining | NodeState::Moving => Color::Cyan,
        NodeState::Repairing => Color::Yellow,
        NodeState::Bypass => Color::Red,
    };
    Span::styled(state_name(node.state), Style::new().fg(colour))
}

fn upload(node: &PeerNode) -> String {
    match node.role {
        PeerRole::Consumer => "consumer".to_owned(),
        PeerRole::Unspecified | PeerRole::Contributor | PeerRole::Relay => {
            BitRate::from_bits_per_second(node.upload_bps).to_string()
        }
    }
}

fn place(source: Option<&Source>) -> String {
    match source {
        Some(Source::Cdn) => "CDN".to_owned(),
        Some(Source::Peer(peer)) => short(peer),
        None => "-".to_owned(),
    }
}

fn short(peer: &str) -> String {
    peer.chars().take(SHORT_ID).collect()
}

fn seconds(milliseconds: u32) -> String {
    format!("{:.2}s", f64::from(milliseconds) / 1_000.0)
}

/// Shows an amount of bytes with three or four digits.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if amount < 1_000 {
        return format!("{amount} B");
    }
    // Tenths of the unit, so that rounding needs no floating point.
    let mut tenths = amount / 100;
    for unit in UNITS {
        if tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1_000;
    }
    format!("{}.{} EB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Health;
    use crate::topology::fixtures::topology;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(topology: &Topology, height: u16, scroll: &mut u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(110, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, frame.area(), topology, scroll))
            .unwrap();
        let buffer = terminal.backend().buffer();
        (0..height)
            .map(|y| {
                (0..110)
                    .map(|x| buffer[(x, y)].symbol())
                    .collect::<String>()
            })
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_row_tells_about_its_peer() {
        let mut topology = topology(&[("aaaabbbbccccdddd", "cdn"), ("b", "aaaabbbbccccdddd")]);
        topology.nodes[1].health = Some(Health {
            bytes_from_cdn: 375_000,
            bytes_from_peers: 12_345_678,
            buffer_ms: 5_900,
            latency_ms: 2_140,
            stalls: 1,
        });
        let lines = screen(&topology, 4, &mut 0);
        assert!(lines[1].starts_with("aaaabbbb  "), "{lines:?}");
        for word in [
            "└─ b", "active", "aaaabbbb", "CDN", "20mbit", "2.14s", "5.90s", "375.0 kB", "12.3 MB",
        ] {
            assert!(lines[2].contains(word), "{word}: {lines:?}");
        }
    }

    #[test]
    fn scrolling_stops_at_the_last_row() {
        let topology = topology(&[("a", "cdn"), ("b", "cdn"), ("c", "cdn"), ("d", "cdn")]);
        let mut scroll = 100;
        let lines = screen(&topology, 3, &mut scroll);
        assert_eq!(scroll, 2);
        assert!(
            lines[1].starts_with('c') && lines[2].starts_with('d'),
            "{lines:?}"
        );
    }

    #[test]
    fn amounts_have_units() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_234_567, "1.2 MB"),
            (999_999, "999.9 kB"),
            (4_000_000_000, "4.0 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (amount, text) in table {
            assert_eq!(bytes(amount), text);
        }
    }
}
