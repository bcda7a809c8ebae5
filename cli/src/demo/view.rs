//! The demo's screen.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Borders, Gauge, Padding, Paragraph, Sparkline};

use super::leadership::Leadership;
use super::nodes::NodeProcess;
use super::picture::{Picture, Taken};
use crate::terminal::tree_table::{self, bytes};
use crate::topology::count;

/// Over how many seconds the rates that are shown are averaged; segments come every two seconds.
const SMOOTH: usize = 4;

/// Draws the picture on the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, picture: &Picture, scroll: &mut u16) {
    let nodes_height = nodes_height(&picture.leadership);
    let [head, figures, nodes, tree, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(nodes_height),
        Constraint::Min(4),
        Constraint::Length(4),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(picture)), head);
    draw_figures(frame, figures, picture);
    if nodes_height > 0 {
        let lines: Vec<Line<'_>> = node_lines(&picture.leadership);
        let title = format!(
            " the nodes, {}, longest gap {} ms ",
            count(
                usize::try_from(picture.leadership.failovers).unwrap_or(usize::MAX),
                "failover"
            ),
            picture.longest_gap.as_millis(),
        );
        frame.render_widget(Paragraph::new(lines).block(framed(&title)), nodes);
    }
    let block = framed(" the tree, as the orchestrator has it ");
    let inside = block.inner(tree);
    frame.render_widget(block, tree);
    tree_table::draw(frame, inside, &picture.topology, scroll);
    frame.render_widget(Paragraph::new(footer(picture)), foot);
}

/// One node alone is nothing to look at.
fn nodes_height(leadership: &Leadership) -> u16 {
    match leadership.processes.len() {
        0 | 1 => 0,
        nodes => u16::try_from(nodes + 2).unwrap_or(u16::MAX),
    }
}

fn node_lines(leadership: &Leadership) -> Vec<Line<'static>> {
    let line = |node: &NodeProcess| {
        let name = Span::from(format!("node {}  ", node.number)).bold();
        let Some(pid) = node.pid else {
            return Line::from(vec![name, Span::from("has ended: r starts it again").red()]);
        };
        let (led, groups) = leadership.leads(node);
        let mut spans = vec![
            name,
            Span::from(format!("pid {pid:<8}")).green(),
            Span::from(format!(
                "leads {led:>2} of {groups} groups  {}",
                node.endpoint
            )),
        ];
        if leadership.owner == Some(node.number) {
            spans.push(Span::from("  owns the channel").yellow().bold());
        }
        Line::from(spans)
    };
    leadership.processes.iter().map(line).collect()
}

/// What a person may try with several nodes.
pub(crate) fn invitation(leadership: &Leadership) -> String {
    let nodes = || leadership.processes.iter();
    let owner = nodes().find(|node| leadership.owner == Some(node.number));
    match (owner, owner.and_then(|node| node.pid)) {
        (Some(_), Some(pid)) => format!("kill the channel's owner: kill -9 {pid}"),
        (Some(_), None) => "another node takes the channel over".to_owned(),
        (None, _) => {
            let pids = nodes().filter_map(|node| node.pid.map(|pid| pid.to_string()));
            format!(
                "kill a node: kill -9 one of {}",
                pids.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

fn headline(picture: &Picture) -> Line<'static> {
    let state = match (&picture.problem, picture.formed_after) {
        (Some(problem), _) => format!("not current: {problem}").red(),
        (None, Some(_)) => "live".green(),
        (None, None) => format!(
            "forming: {} of {} peers have a place",
            picture.placed(),
            picture.peers
        )
        .cyan(),
    };
    Line::from(vec![
        Span::from(" Espalier ").bold().black().on_green(),
        Span::from(" "),
        state,
        Span::from(format!(
            "  {} peers, {} fed by the CDN, depth {}  ",
            picture.topology.peer_count(),
            picture.topology.root_count(),
            picture.topology.max_depth(),
        )),
        Span::from(format!("{}  {}", clock(picture.elapsed), picture.stream)).dark_gray(),
    ])
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let [offload, cdn, peers] = Layout::horizontal([
        Constraint::Percentage(34),
        Constraint::Percentage(33),
        Constraint::Percentage(33),
    ])
    .areas(area);
    draw_offload(frame, offload, picture);
    let taken = picture.taken();
    let title = |name: &str, rate: u64, total: u64| {
        format!(
            " {name}: {}.{} Mbit/s, {} ",
            rate / 10,
            rate % 10,
            bytes(total)
        )
    };
    let rates = |of: fn(&Taken) -> u64| smooth(picture, of);
    let (from_cdn, from_peers) = (
        rates(|taken| taken.from_cdn),
        rates(|taken| taken.from_peers),
    );
    // One scale for both, or their heights would tell nothing about each other.
    let most = from_cdn
        .iter()
        .chain(&from_peers)
        .copied()
        .max()
        .unwrap_or(1)
        .max(1);
    let shown = |values: &[u64]| tenths_of_megabits(values.last().copied().unwrap_or(0));
    draw_rates(
        frame,
        cdn,
        title("from the CDN", shown(&from_cdn), taken.from_cdn),
        &from_cdn,
        most,
        Color::Yellow,
    );
    draw_rates(
        frame,
        peers,
        title("from peers", shown(&from_peers), taken.from_peers),
        &from_peers,
        most,
        Color::Green,
    );
}

fn draw_offload(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let share = picture
        .taken_steady()
        .offload()
        .or_else(|| picture.taken().offload());
    let stalls: u64 = picture
        .stats
        .values()
        .map(|stats| stats.playout.stalls)
        .sum();
    let gauge = Gauge::default()
        .block(framed(&format!(" offload, {stalls} stalls ")))
        .gauge_style(Style::new().fg(Color::Green).bg(Color::Black))
        .ratio(share.unwrap_or(0.0).clamp(0.0, 1.0))
        .label(share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)));
    frame.render_widget(gauge, area);
}

fn draw_rates(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    values: &[u64],
    most: u64,
    colour: Color,
) {
    let block = framed(&title);
    let width = usize::from(block.inner(area).width);
    let recent = &values[values.len().saturating_sub(width)..];
    let line = Sparkline::default()
        .block(block)
        .style(Style::new().fg(colour))
        .max(most)
        .data(recent.iter().copied());
    frame.render_widget(line, area);
}

fn framed(title: &str) -> Block<'static> {
    Block::new()
        .borders(Borders::ALL)
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(Color::DarkGray))
        .title(title.to_owned())
        .padding(Padding::horizontal(1))
}

fn footer(picture: &Picture) -> Vec<Line<'static>> {
    let watch = match &picture.url {
        Some(url) => Line::from(vec![
            Span::from(" watch the farthest peer: ").dark_gray(),
            Span::from(format!("ffplay {url}")).bold(),
            Span::from("   (or VLC, or hls.js)").dark_gray(),
        ]),
        None => Line::from(" a player's address follows when the tree has formed").dark_gray(),
    };
    let mut keys = vec![Span::from(" q ends everything, arrows scroll").dark_gray()];
    if picture.leadership.processes.len() > 1 {
        keys.push(Span::from(", r starts ended nodes; ").dark_gray());
        keys.push(Span::from(invitation(&picture.leadership)).bold());
    }
    let page = |name, url: &Option<String>| match url {
        Some(url) => Line::from(vec![Span::from(name).dark_gray(), url.clone().bold()]),
        None => Line::default(),
    };
    let dashboard = page(" dashboard: ", &picture.dashboard);
    let player = page(" watch in a browser: ", &picture.player);
    vec![watch, player, dashboard, Line::from(keys)]
}

/// Bytes in a second, averaged over the seconds before.
fn smooth(picture: &Picture, of: fn(&Taken) -> u64) -> Vec<u64> {
    let values: Vec<u64> = picture.rates.iter().map(of).collect();
    (1..=values.len())
        .map(|end| {
            let window = &values[end.saturating_sub(SMOOTH)..end];
            let length = u64::try_from(window.len()).unwrap_or(u64::MAX).max(1);
            window.iter().sum::<u64>() / length
        })
        .collect()
}

fn tenths_of_megabits(bytes_per_second: u64) -> u64 {
    bytes_per_second.saturating_mul(8) / 100_000
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::leadership::tests::leadership;
    use crate::demo::picture::tests::picture;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, picture, &mut 0)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_tree_offload_rates_and_address() {
        let mut picture = picture();
        picture.url = Some("http://127.0.0.1:1/demo/master.m3u8".into());
        picture.dashboard = Some("http://127.0.0.1:2/#token=t".into());
        picture.player = Some("http://127.0.0.1:2/watch/demo#token=t".into());
        let text = screen(&picture, 140, 20);
        for words in [
            "live",
            "2 peers, 1 fed by the CDN, depth 2",
            "00:03",
            "50.0 %",
            "from the CDN: 0.0 Mbit/s, 3.0 kB",
            "└─ b",
            "0.09s",
            "ffplay http://127.0.0.1:1/demo/master.m3u8",
            "dashboard: http://127.0.0.1:2/#token=t",
            "watch in a browser: http://127.0.0.1:2/watch/demo#token=t",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
    }

    #[test]
    fn several_nodes_are_shown_with_what_they_lead_and_whom_to_kill() {
        let (before, now) = leadership();
        let mut picture = picture();
        picture.leadership = before;
        let text = screen(&picture, 140, 24);
        for words in [
            "node 2  pid 12      leads  1 of 3 groups  http://127.0.0.1:2  owns the channel",
            "0 failovers",
            "kill the channel's owner: kill -9 12",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        picture.leadership = now;
        let text = screen(&picture, 140, 24);
        for words in [
            "node 2  has ended: r starts it again",
            "1 failover,",
            "http://127.0.0.1:3  owns the channel",
            "kill -9 13",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        for (width, height) in [(1, 1), (10, 3), (40, 8)] {
            screen(&picture, width, height);
        }
    }

    #[test]
    fn an_empty_picture_and_a_tiny_terminal_are_drawn_too() {
        let text = screen(&Picture::new(12, ""), 120, 20);
        assert!(
            text.contains("forming: 0 of 12 peers have a place"),
            "{text}"
        );
        for (width, height) in [(1, 1), (10, 3), (40, 8)] {
            screen(&picture(), width, height);
        }
    }

    #[test]
    fn rates_are_averaged() {
        let picture = picture();
        assert_eq!(
            smooth(&picture, |taken| taken.from_cdn),
            [1_000, 1_000, 1_000]
        );
        assert_eq!(smooth(&picture, |taken| taken.from_peers), [0, 250, 500]);
        assert_eq!(tenths_of_megabits(187_500), 15);
    }
}
