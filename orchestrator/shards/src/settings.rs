//! How a group behaves, with the reasons for each number.

use openraft::{Config, ConfigError, SnapshotPolicy};

/// The largest command. The network splits what it sends by bytes, so this bounds one message too.
pub const MAX_COMMAND: usize = 16 << 20;
/// The most entries in one append to a follower.
pub const PAYLOAD_ENTRIES: u64 = 256;

/// Timing and snapshot sizes of a group. The timing is patient: a killed leader is noticed by its
/// connections (see [`crate::reset`]), so timeouts serve only hosts that fall silent, and a slow disk
/// must not look like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader says that it lives, in milliseconds.
    pub heartbeat_ms: u64,
    /// The least silence after which a follower stands for election, in milliseconds.
    pub election_min_ms: u64,
    /// The most, and the length of a leader's lease, in milliseconds.
    pub election_max_ms: u64,
    /// A snapshot is due when the commands since the last one exceed this many bytes and its size.
    pub snapshot_log_bytes: u64,
    /// Entries kept behind a snapshot, so that a follower that is a little late needs no snapshot.
    pub kept_entries: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            snapshot_log_bytes: 64 << 20,
            kept_entries: 1_024,
        }
    }
}

impl Settings {
    /// openraft's configuration of a group of this name.
    ///
    /// # Errors
    ///
    /// When the timing is not in order (heartbeat below the least timeout, that below the most).
    pub fn config(&self, name: String) -> Result<Config, ConfigError> {
        let config = Config {
            cluster_name: name,
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            // Who returns after a partition asks before it raises the term for everybody.
            enable_pre_vote: Some(true),
            // A leader that resumes its term after a restart may have lost entries that followers
            // hold, and would write others in their place: acknowledged writes would be lost.
            enable_leader_restore: Some(false),
            // By bytes, which openraft does not count: the keeper does.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.kept_entries,
            purge_batch_size: self.kept_entries.clamp(1, 256),
            max_payload_entries: PAYLOAD_ENTRIES,
            // For the whole of a snapshot, however slow the line.
            install_snapshot_timeout: 600_000,
            backoff: "20ms 50ms 100ms ...500ms".to_owned(),
            ..Config::default()
        };
        config.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_leader_never_resumes_its_term() {
        let config = Settings::default().config("g1".into()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
    }

    #[test]
    fn timing_out_of_order_is_refused() {
        let settings = Settings {
            heartbeat_ms: 700,
            ..Settings::default()
        };
        assert!(settings.config("g1".into()).is_err());
    }
}
