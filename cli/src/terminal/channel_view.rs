//! The picture of `espalier channel watch`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::tree_table;
use crate::channel::ChannelRecord;
use crate::topology::{Topology, count};

/// A channel at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ChannelPicture {
    pub(crate) name: String,
    pub(crate) channel: ChannelRecord,
    pub(crate) topology: Topology,
    /// Why the picture is older than it should be.
    pub(crate) problem: Option<String>,
}

/// Draws the picture on the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, picture: &ChannelPicture, scroll: &mut u16) {
    let [head, tree, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(picture)), head);
    tree_table::draw(frame, tree, &picture.topology, scroll);
    let foot_text = match &picture.problem {
        Some(problem) => Line::from(format!("not current: {problem}")).red(),
        None => Line::from("q ends, arrows scroll").dark_gray(),
    };
    frame.render_widget(Paragraph::new(foot_text), foot);
}

fn headline(picture: &ChannelPicture) -> Vec<Line<'static>> {
    let record = &picture.channel;
    let audience = &record.audience;
    let healthy = record.origin_state == "live" && !record.degraded;
    let state = match &record.origin_problem {
        Some(problem) => format!("{}: {problem}", record.origin_state),
        None => record.origin_state.to_owned(),
    };
    let colour = if healthy { Color::Green } else { Color::Yellow };
    vec![
        Line::from(vec![
            Span::from(picture.name.clone()).bold(),
            Span::from("  "),
            Span::styled(state, Style::new().fg(colour)),
            Span::from(format!("  {}", record.origin)).dark_gray(),
        ]),
        Line::from(format!(
            "{}, {}, depth {}   offload {:.1} %   from the CDN {}, from peers {}   {} stalls",
            count(picture.topology.peer_count(), "peer"),
            count(picture.topology.root_count(), "root"),
            picture.topology.max_depth(),
            audience.offload * 100.0,
            tree_table::bytes(audience.bytes_from_cdn),
            tree_table::bytes(audience.bytes_from_peers),
            audience.stalls,
        )),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fixtures::topology;
    use espalier_proto::v1;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn the_screen_shows_state_tree_and_problem() {
        let picture = ChannelPicture {
            name: "news".into(),
            channel: ChannelRecord::from(v1::Channel {
                origin_state: v1::OriginState::Live.into(),
                audience: Some(v1::Audience {
                    offload: 0.5,
                    ..v1::Audience::default()
                }),
                ..v1::Channel::default()
            }),
            topology: topology(&[("a", "cdn"), ("b", "a")]),
            problem: Some("connection reset".into()),
        };
        let mut terminal = Terminal::new(TestBackend::new(120, 10)).unwrap();
        terminal
            .draw(|frame| draw(frame, &picture, &mut 0))
            .unwrap();
        let text = terminal.backend().to_string();
        for words in [
            "news  live",
            "2 peers, 1 root,",
            "offload 50.0 %",
            "└─ b",
            "connection reset",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
    }
}
