//! A channel as text and as the JSON that scripts depend on.

use std::collections::BTreeMap;
use std::fmt::Write;

use espalier_process::{BitRate, format_duration};
use espalier_proto::v1::{self, OriginState};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A channel in JSON: what is known, with times in RFC 3339 and keys in hexadecimal.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChannelRecord {
    pub(crate) name: String,
    pub(crate) origin: String,
    /// Null: the orchestrator signs.
    pub(crate) signer: Option<String>,
    pub(crate) origin_state: &'static str,
    pub(crate) origin_problem: Option<String>,
    pub(crate) degraded: bool,
    pub(crate) policy: PolicyRecord,
    pub(crate) tracks: Vec<TrackRecord>,
    pub(crate) audience: AudienceRecord,
    pub(crate) suspects: Vec<SuspectRecord>,
    pub(crate) public_keys: Vec<String>,
    pub(crate) create_time: Option<String>,
    pub(crate) etag: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PolicyRecord {
    target_roots: Option<u32>,
    max_planned_roots: Option<u32>,
    max_depth: Option<u32>,
    overhead_permille: Option<u32>,
    max_children: Option<u32>,
    cdn_lease_bps: Option<u64>,
    stripes: Option<u32>,
    /// As in a policy file; null: the default.
    privacy: Option<&'static str>,
    allow_metered: Option<bool>,
    allow_battery: Option<bool>,
    allow_mobile: Option<bool>,
    max_planned_moves_per_viewer_hour: Option<u32>,
    learn_upload: Option<bool>,
    cdn_budget_by_region: BTreeMap<String, u32>,
    sites: Vec<SiteRecord>,
}

#[derive(Debug, Clone, Serialize)]
struct SiteRecord {
    subnet: String,
    site: u32,
    region: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TrackRecord {
    track: String,
    index: u32,
    epoch: u32,
    newest_sequence: u64,
    rate_bps: u64,
    target_duration_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct AudienceRecord {
    pub(crate) peers: u32,
    pub(crate) roots: u32,
    pub(crate) max_depth: u32,
    pub(crate) bytes_from_cdn: u64,
    pub(crate) bytes_from_peers: u64,
    pub(crate) offload: f64,
    pub(crate) stalls: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct SuspectRecord {
    peer: String,
    accusers: u32,
    reports: u64,
    last_report_time: Option<String>,
}

impl From<v1::Channel> for ChannelRecord {
    fn from(wire: v1::Channel) -> Self {
        let origin_state = origin_state(wire.origin_state());
        Self {
            name: wire
                .name
                .strip_prefix("channels/")
                .unwrap_or(&wire.name)
                .to_owned(),
            origin: wire.origin_uri,
            signer: Some(wire.signer_uri).filter(|uri| !uri.is_empty()),
            origin_state,
            origin_problem: Some(wire.origin_problem).filter(|problem| !problem.is_empty()),
            degraded: wire.degraded,
            policy: PolicyRecord::from(wire.policy.unwrap_or_default()),
            tracks: wire.tracks.into_iter().map(TrackRecord::from).collect(),
            audience: wire.audience.map(AudienceRecord::from).unwrap_or_default(),
            suspects: wire.suspects.into_iter().map(SuspectRecord::from).collect(),
            public_keys: wire
                .public_keys
                .iter()
                .map(|key| hexadecimal(key))
                .collect(),
            create_time: wire.create_time.and_then(rfc3339),
            etag: wire.etag,
        }
    }
}

impl From<v1::Policy> for PolicyRecord {
    fn from(wire: v1::Policy) -> Self {
        let privacy = match wire.privacy() {
            v1::Privacy::Unspecified => None,
            v1::Privacy::Any => Some("any"),
            v1::Privacy::SameSite => Some("same-site"),
            v1::Privacy::RelayOnly => Some("relay-only"),
            v1::Privacy::SameRegion => Some("same-region"),
        };
        let budgets = wire.cdn_budget_by_region.into_iter();
        let sites = wire.sites.into_iter();
        Self {
            target_roots: wire.target_roots,
            max_planned_roots: wire.max_planned_roots,
            max_depth: wire.max_depth,
            overhead_permille: wire.overhead_permille,
            max_children: wire.max_children,
            cdn_lease_bps: wire.cdn_lease_bps,
            stripes: wire.stripes,
            privacy,
            allow_metered: wire.allow_metered,
            allow_battery: wire.allow_battery,
            allow_mobile: wire.allow_mobile,
            max_planned_moves_per_viewer_hour: wire.max_planned_moves_per_viewer_hour,
            learn_upload: wire.learn_upload,
            cdn_budget_by_region: budgets
                .map(|budget| (budget.region, budget.roots))
                .collect(),
            sites: sites
                .map(|rule| SiteRecord {
                    subnet: rule.subnet,
                    site: rule.site,
                    region: rule.region,
                })
                .collect(),
        }
    }
}

impl From<v1::TrackStatus> for TrackRecord {
    fn from(wire: v1::TrackStatus) -> Self {
        Self {
            track: wire.track,
            index: wire.index,
            epoch: wire.epoch,
            newest_sequence: wire.newest_sequence,
            rate_bps: wire.rate_bps,
            target_duration_ms: wire.target_duration.and_then(milliseconds),
        }
    }
}

impl From<v1::Audience> for AudienceRecord {
    fn from(wire: v1::Audience) -> Self {
        Self {
            peers: wire.peers,
            roots: wire.roots,
            max_depth: wire.max_depth,
            bytes_from_cdn: wire.bytes_from_cdn,
            bytes_from_peers: wire.bytes_from_peers,
            offload: wire.offload,
            stalls: wire.stalls,
        }
    }
}

impl From<v1::Suspect> for SuspectRecord {
    fn from(wire: v1::Suspect) -> Self {
        Self {
            peer: wire.peer,
            accusers: wire.accusers,
            reports: wire.reports,
            last_report_time: wire.last_report_time.and_then(rfc3339),
        }
    }
}

/// The findings of `espalier channel check --format json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckRecord<'a> {
    peers_checked: u32,
    findings: Vec<FindingRecord<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct FindingRecord<'a> {
    invariant: &'a str,
    peer: &'a str,
    track: &'a str,
    detail: &'a str,
}

impl<'a> From<&'a v1::CheckTopologyResponse> for CheckRecord<'a> {
    fn from(wire: &'a v1::CheckTopologyResponse) -> Self {
        let findings = wire
            .findings
            .iter()
            .map(|found| FindingRecord {
                invariant: &found.invariant,
                peer: &found.peer,
                track: &found.track,
                detail: &found.detail,
            })
            .collect();
        Self {
            peers_checked: wire.peers_checked,
            findings,
        }
    }
}

/// Shows what a check found, a line each.
pub(crate) fn check_text(name: &str, answer: &v1::CheckTopologyResponse) -> String {
    if answer.findings.is_empty() {
        return format!(
            "{name}: every invariant holds ({} peers checked)",
            answer.peers_checked
        );
    }
    answer
        .findings
        .iter()
        .map(|found| {
            let place: Vec<&str> = [&found.track, &found.peer]
                .into_iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .collect();
            format!("{}: {}: {}", found.invariant, place.join("/"), found.detail)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Shows a channel to a person.
pub(crate) fn text(record: &ChannelRecord) -> String {
    let mut out = record.name.clone();
    let mut row = |key: &str, value: String| {
        write!(out, "\n  {key:<9} {value}").expect("invariant: a String takes every text");
    };
    row("origin", record.origin.clone());
    row("state", state_text(record));
    row(
        "signer",
        record
            .signer
            .clone()
            .unwrap_or_else(|| "the orchestrator".to_owned()),
    );
    for track in &record.tracks {
        row("track", track_text(track));
    }
    let audience = &record.audience;
    row(
        "audience",
        format!(
            "{} peers, {} roots, depth {}, offload {:.1} %, {} stalls",
            audience.peers,
            audience.roots,
            audience.max_depth,
            audience.offload * 100.0,
            audience.stalls
        ),
    );
    for suspect in &record.suspects {
        row(
            "suspect",
            format!(
                "{}: {} reports by {} peers",
                suspect.peer, suspect.reports, suspect.accusers
            ),
        );
    }
    for key in &record.public_keys {
        row("key", key.clone());
    }
    if let Some(created) = &record.create_time {
        row("created", created.clone());
    }
    out
}

/// Shows channels to a person, a line each.
pub(crate) fn table(records: &[ChannelRecord]) -> String {
    let width = records
        .iter()
        .map(|record| record.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut lines = vec![format!(
        "{:<width$}  {:<12} {:>6}  ORIGIN",
        "NAME", "STATE", "PEERS"
    )];
    lines.extend(records.iter().map(|record| {
        let (state, peers) = (record.origin_state, record.audience.peers);
        format!(
            "{:<width$}  {state:<12} {peers:>6}  {}",
            record.name, record.origin
        )
    }));
    lines.join("\n")
}

fn state_text(record: &ChannelRecord) -> String {
    let mut text = record.origin_state.to_owned();
    if let Some(problem) = &record.origin_problem {
        write!(text, ": {problem}").expect("invariant: a String takes every text");
    }
    if record.degraded {
        text.push_str(" (degraded: an event was dropped after failing twice)");
    }
    text
}

fn track_text(track: &TrackRecord) -> String {
    let target = track
        .target_duration_ms
        .map(|target| {
            let span = std::time::Duration::from_millis(target);
            format!(", target duration {}", format_duration(span))
        })
        .unwrap_or_default();
    let rate = BitRate::from_bits_per_second(track.rate_bps / 1_000 * 1_000);
    format!(
        "{}: {rate}, newest {}/{}{target}",
        track.track, track.epoch, track.newest_sequence
    )
}

fn origin_state(state: OriginState) -> &'static str {
    match state {
        OriginState::Unspecified => "unknown",
        OriginState::Starting => "starting",
        OriginState::Live => "live",
        OriginState::Frozen => "frozen",
        OriginState::Unreachable => "unreachable",
        OriginState::Invalid => "invalid",
        OriginState::Ended => "ended",
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn milliseconds(span: prost_types::Duration) -> Option<u64> {
    let span = std::time::Duration::try_from(span).ok()?;
    u64::try_from(span.as_millis()).ok()
}

fn rfc3339(timestamp: prost_types::Timestamp) -> Option<String> {
    let nanoseconds = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> v1::Channel {
        v1::Channel {
            name: "channels/news".into(),
            origin_uri: "http://cdn/master.m3u8".into(),
            origin_state: OriginState::Frozen.into(),
            origin_problem: "the playlist has not changed for 9 s".into(),
            public_keys: vec![vec![0, 0xab]],
            create_time: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: 0,
            }),
            tracks: vec![v1::TrackStatus {
                track: "video".into(),
                rate_bps: 1_500_321,
                newest_sequence: 7,
                epoch: 1,
                target_duration: Some(prost_types::Duration {
                    seconds: 2,
                    nanos: 0,
                }),
                ..v1::TrackStatus::default()
            }],
            suspects: vec![v1::Suspect {
                peer: "00000000000000aa".into(),
                accusers: 2,
                reports: 3,
                last_report_time: None,
            }],
            audience: Some(v1::Audience {
                peers: 12,
                offload: 0.91,
                ..v1::Audience::default()
            }),
            ..v1::Channel::default()
        }
    }

    #[test]
    fn json_has_the_fields_that_scripts_read() {
        let value = serde_json::to_value(ChannelRecord::from(channel())).unwrap();
        assert_eq!(value["name"], "news");
        assert_eq!(value["origin_state"], "frozen");
        assert_eq!(value["signer"], serde_json::Value::Null);
        assert_eq!(value["public_keys"][0], "00ab");
        assert_eq!(value["create_time"], "1970-01-01T00:00:00Z");
        assert_eq!(value["suspects"][0]["peer"], "00000000000000aa");
        assert_eq!(value["tracks"][0]["target_duration_ms"], 2_000);
        assert_eq!(value["audience"]["peers"], 12);
    }

    #[test]
    fn text_says_what_is_wrong() {
        let text = text(&ChannelRecord::from(channel()));
        assert!(
            text.contains("frozen: the playlist has not changed for 9 s"),
            "{text}"
        );
        assert!(
            text.contains("video: 1500kbit, newest 1/7, target duration 2s"),
            "{text}"
        );
        assert!(
            text.contains("00000000000000aa: 3 reports by 2 peers"),
            "{text}"
        );
        assert!(text.contains("offload 91.0 %"), "{text}");
    }

    #[test]
    fn findings_are_a_line_each() {
        let finding = v1::Finding {
            invariant: "budget".into(),
            peer: "aa".into(),
            track: "video".into(),
            detail: "3 children, 2 fit".into(),
        };
        let whole = v1::Finding {
            invariant: "acyclic".into(),
            detail: "x".into(),
            ..v1::Finding::default()
        };
        let answer = v1::CheckTopologyResponse {
            findings: vec![finding, whole],
            peers_checked: 3,
        };
        assert_eq!(
            check_text("news", &answer),
            "budget: video/aa: 3 children, 2 fit\nacyclic: : x"
        );
        assert_eq!(
            check_text(
                "news",
                &v1::CheckTopologyResponse {
                    findings: vec![],
                    peers_checked: 3
                }
            ),
            "news: every invariant holds (3 peers checked)"
        );
    }

    #[test]
    fn times_outside_of_the_calendar_are_left_out() {
        assert_eq!(
            rfc3339(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0
            }),
            None
        );
    }
}
