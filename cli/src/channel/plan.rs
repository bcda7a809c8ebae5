//! What another policy would do, as text and as JSON.

use espalier_process::format_duration;
use espalier_proto::v1;
use serde::Serialize;
use std::time::Duration;

/// What another policy would do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PlanRecord {
    now: FiguresRecord,
    then: FiguresRecord,
    moves: u64,
    peers_moved: u32,
    takes_ms: u64,
    settled: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
struct FiguresRecord {
    peers: u32,
    roots: u32,
    max_depth: u32,
    mean_depth: f64,
    offload: f64,
}

impl From<v1::PlanChannelResponse> for PlanRecord {
    fn from(wire: v1::PlanChannelResponse) -> Self {
        let takes = wire.takes.and_then(|takes| Duration::try_from(takes).ok());
        let takes = takes.unwrap_or_default().as_millis();
        Self {
            now: FiguresRecord::from(wire.now.unwrap_or_default()),
            then: FiguresRecord::from(wire.then.unwrap_or_default()),
            moves: wire.moves,
            peers_moved: wire.peers_moved,
            takes_ms: u64::try_from(takes).unwrap_or(u64::MAX),
            settled: wire.settled,
        }
    }
}

impl From<v1::PlanFigures> for FiguresRecord {
    fn from(wire: v1::PlanFigures) -> Self {
        Self {
            peers: wire.peers,
            roots: wire.roots,
            max_depth: wire.max_depth,
            mean_depth: wire.mean_depth,
            offload: wire.offload,
        }
    }
}

/// Shows a plan to a person.
pub(super) fn text(name: &str, plan: &PlanRecord) -> String {
    let PlanRecord { now, then, .. } = plan;
    let row = |what: &str, now: String, then: String| format!("  {what:<12}{now:>10}{then:>10}\n");
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    let mut out = format!("{name}, {} peers\n", now.peers);
    out += &row("", "now".to_owned(), "then".to_owned());
    out += &row("roots", now.roots.to_string(), then.roots.to_string());
    out += &row(
        "max depth",
        now.max_depth.to_string(),
        then.max_depth.to_string(),
    );
    let depth = |figures: &FiguresRecord| format!("{:.2}", figures.mean_depth);
    out += &row("mean depth", depth(now), depth(then));
    out += &row("offload", percent(now.offload), percent(then.offload));
    let (moves, peers) = (plan.moves, plan.peers_moved);
    out += &match moves {
        0 => "nobody would move".to_owned(),
        _ => format!(
            "{moves} moves of {peers} peers within {}",
            format_duration(Duration::from_millis(plan.takes_ms))
        ),
    };
    if !plan.settled {
        out += "\nthe trees would not come to rest within four hours";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> PlanRecord {
        let figures = |roots, max_depth, mean_depth, offload| v1::PlanFigures {
            peers: 20,
            roots,
            max_depth,
            mean_depth,
            offload,
        };
        PlanRecord::from(v1::PlanChannelResponse {
            now: Some(figures(1, 2, 1.95, 0.95)),
            then: Some(figures(4, 3, 2.5, 0.8)),
            moves: 12,
            peers_moved: 9,
            takes: Some(prost_types::Duration {
                seconds: 90,
                nanos: 500_000_000,
            }),
            settled: true,
        })
    }

    #[test]
    fn a_plan_is_shown_side_by_side() {
        let text = text("news", &plan());
        let words: Vec<_> = text.split_whitespace().collect();
        let words = words.join(" ");
        assert!(
            words.starts_with("news, 20 peers now then roots 1 4 max depth 2 3"),
            "{text}"
        );
        assert!(
            words.contains("offload 95.0 % 80.0 % 12 moves of 9 peers within"),
            "{text}"
        );
    }

    #[test]
    fn what_would_change_nothing_or_never_ends_says_so() {
        let still = PlanRecord {
            moves: 0,
            settled: false,
            ..plan()
        };
        let text = text("news", &still);
        assert!(text.contains("nobody would move"), "{text}");
        assert!(
            text.ends_with("not come to rest within four hours"),
            "{text}"
        );
    }

    #[test]
    fn scripts_get_every_figure() {
        let json = serde_json::to_value(plan()).unwrap();
        assert_eq!(json["then"]["roots"], 4);
        assert_eq!(json["now"]["offload"], 0.95);
        assert_eq!(
            (&json["moves"], &json["peers_moved"]),
            (&12.into(), &9.into())
        );
        assert_eq!(json["takes_ms"], 90_500);
        assert_eq!(json["settled"], true);
    }
}
