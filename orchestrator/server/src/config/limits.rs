//! Bounds on what clients may use, all with defaults.

use core::time::Duration;

use super::reader::Section;

/// Bounds on what clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Channels on this node.
    pub max_channels: usize,
    /// Peers' sessions on this node.
    pub max_sessions: usize,
    /// Calls that are being answered at once; more are refused with RESOURCE_EXHAUSTED.
    pub max_concurrent_calls: usize,
    /// Calls of one client address in a second, in the long run.
    pub calls_per_second_per_address: u32,
    /// Messages of one session in a second, in the long run; more are read later.
    pub messages_per_second_per_session: u32,
    /// How long an answer may take.
    pub call_timeout: Duration,
    /// Assignments, signals and notices that wait for one peer; a peer with more is dropped.
    pub session_queue: usize,
    /// Events that wait for one channel's actor; more are refused with RESOURCE_EXHAUSTED.
    pub channel_queue: usize,
    /// Wire bit/s that a peer may offer to upload, at the most.
    pub max_upload_bps: u64,
    /// How often peers report.
    pub report_interval: Duration,
    /// How long a resume ticket holds.
    pub ticket_lifetime: Duration,
    /// Peers that arrive at other nodes in a second, at the most, because this one sends them there.
    pub moves_per_second: u32,
    /// How long a node that was asked to end waits for its peers to be elsewhere.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_channels: 1_000,
            max_sessions: 50_000,
            max_concurrent_calls: 4_096,
            calls_per_second_per_address: 500,
            messages_per_second_per_session: 100,
            call_timeout: Duration::from_secs(20),
            session_queue: 64,
            channel_queue: 4_096,
            max_upload_bps: 100_000_000_000,
            report_interval: Duration::from_secs(1),
            ticket_lifetime: Duration::from_secs(24 * 3600),
            moves_per_second: 1_000,
            stop_grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Reads the `[limits]` section: what is absent keeps its default.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let millis = |value: Duration| u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        Self {
            max_channels: section.number("max_channels", default.max_channels, 1, 100_000),
            max_sessions: section.number("max_sessions", default.max_sessions, 1, 1_000_000),
            max_concurrent_calls: section.number(
                "max_concurrent_calls",
                default.max_concurrent_calls,
                1,
                1_000_000,
            ),
            calls_per_second_per_address: section.number(
                "calls_per_second_per_address",
                default.calls_per_second_per_address,
                1,
                1_000_000,
            ),
            messages_per_second_per_session: section.number(
                "messages_per_second_per_session",
                default.messages_per_second_per_session,
                1,
                1_000_000,
            ),
            call_timeout: Duration::from_millis(section.number(
                "call_timeout_ms",
                millis(default.call_timeout),
                100,
                600_000,
            )),
            session_queue: section.number("session_queue", default.session_queue, 4, 65_536),
            channel_queue: section.number("channel_queue", default.channel_queue, 16, 1_000_000),
            max_upload_bps: section.number(
                "max_upload_bps",
                default.max_upload_bps,
                1,
                1_000_000_000_000,
            ),
            report_interval: Duration::from_millis(section.number(
                "report_interval_ms",
                millis(default.report_interval),
                100,
                60_000,
            )),
            ticket_lifetime: Duration::from_secs(section.number(
                "ticket_lifetime_s",
                default.ticket_lifetime.as_secs(),
                60,
                30 * 86_400,
            )),
            moves_per_second: section.number(
                "moves_per_second",
                default.moves_per_second,
                1,
                1_000_000,
            ),
            stop_grace: Duration::from_millis(section.number(
                "stop_grace_ms",
                millis(default.stop_grace),
                0,
                3_600_000,
            )),
        }
    }
}
