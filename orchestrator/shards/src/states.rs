//! The states of `orchestrator/core` as replicas.
//!
//! An answer is the outcomes of the entry's operations (`Outcome::encode_all`). What cannot be decoded
//! halts the group: it comes from a newer version, or it is damaged, and guessing would part the replicas.

use std::io::{self, Read, Write};

use bytes::Bytes;
use espalier_orchestrator_core::state::{
    DecodeError, MetaEntry, MetaState, Outcome, ShardEntry, ShardState, SnapshotError,
};

use crate::{Halt, LogPosition, Replica};

impl Replica for ShardState {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        let entry = ShardEntry::decode(command).map_err(unreadable)?;
        Ok(Outcome::encode_all(&ShardState::apply(self, &entry, core_position(at))).into())
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        ShardState::write_snapshot(self, out)
    }

    fn read_snapshot(&self, input: &mut dyn Read) -> io::Result<Self> {
        ShardState::read_snapshot(input).map_err(invalid)
    }

    fn hash(&self) -> u128 {
        ShardState::hash(self).0
    }
}

impl Replica for MetaState {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        let entry = MetaEntry::decode(command).map_err(unreadable)?;
        Ok(Outcome::encode_all(&MetaState::apply(self, &entry, core_position(at))).into())
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        MetaState::write_snapshot(self, out)
    }

    fn read_snapshot(&self, input: &mut dyn Read) -> io::Result<Self> {
        MetaState::read_snapshot(input).map_err(invalid)
    }

    fn hash(&self) -> u128 {
        MetaState::hash(self).0
    }
}

fn core_position(at: LogPosition) -> espalier_orchestrator_core::state::LogPosition {
    espalier_orchestrator_core::state::LogPosition {
        term: at.term,
        index: at.index,
    }
}

fn unreadable(error: DecodeError) -> Halt {
    Halt {
        reason: error.to_string(),
    }
}

fn invalid(error: SnapshotError) -> io::Error {
    match error {
        SnapshotError::Io(error) => error,
        other @ (SnapshotError::Decode(_) | SnapshotError::Checksum) => {
            io::Error::new(io::ErrorKind::InvalidData, other)
        }
    }
}

#[cfg(test)]
mod tests {
    use espalier_orchestrator_core::state::{ClusterRecord, MetaOp};

    use super::*;

    fn initialise(term: u64) -> Vec<u8> {
        let cluster = ClusterRecord {
            id: "c".into(),
            version: 1,
            shards: 16,
        };
        MetaEntry::new(term, vec![MetaOp::Initialise { cluster }])
            .encode()
            .unwrap()
    }

    #[test]
    fn an_entry_of_another_term_is_refused_and_changes_nothing() {
        let mut state = MetaState::default();
        let at = LogPosition { term: 3, index: 7 };
        let refused = Replica::apply(&mut state, at, &initialise(2)).unwrap();
        assert!(!Outcome::decode_all(&refused).unwrap()[0].is_applied());
        assert!(state.cluster().is_none());
        let applied = Replica::apply(&mut state, at, &initialise(3)).unwrap();
        assert!(Outcome::decode_all(&applied).unwrap()[0].is_applied());
        assert_eq!(state.cluster().unwrap().shards, 16);
    }

    #[test]
    fn what_cannot_be_read_halts() {
        let at = LogPosition { term: 1, index: 1 };
        for bytes in [&b""[..], b"\xff\xff\xff", &initialise(1)[..3]] {
            assert!(Replica::apply(&mut MetaState::default(), at, bytes).is_err());
            assert!(Replica::apply(&mut ShardState::default(), at, bytes).is_err());
        }
    }

    #[test]
    fn a_snapshot_is_the_same_state() {
        let mut state = MetaState::default();
        Replica::apply(
            &mut state,
            LogPosition { term: 1, index: 1 },
            &initialise(1),
        )
        .unwrap();
        let mut bytes = Vec::new();
        Replica::write_snapshot(&state, &mut bytes).unwrap();
        let back = Replica::read_snapshot(&MetaState::default(), &mut &bytes[..]).unwrap();
        assert_eq!(Replica::hash(&back), Replica::hash(&state));
        let cut = Replica::read_snapshot(&MetaState::default(), &mut &bytes[..bytes.len() - 1]);
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let altered = Replica::read_snapshot(&MetaState::default(), &mut &bytes[..]);
        assert_eq!(altered.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
