//! The replicated state, as a group sees it.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::LogPosition;

/// A state that a group keeps equal on all its nodes.
///
/// `Clone` must be cheap (persistent maps): a clone is the frozen copy from which a snapshot is
/// written while entries go on being applied, and what a reader is given.
pub trait Replica: Clone + Send + Sync + 'static {
    /// Applies one committed command and answers it. Total and deterministic: a command that makes
    /// no sense is refused in the answer, the same on every node.
    ///
    /// # Errors
    ///
    /// Only for what this program cannot read at all (a kind of command from a newer version): it
    /// halts the group on this node, because guessing would part it from the others.
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt>;

    /// Writes the whole state.
    ///
    /// # Errors
    ///
    /// As the writer fails.
    fn write_snapshot(&self, out: &mut dyn Write) -> std::io::Result<()>;

    /// Replaces the state by what [`Replica::write_snapshot`] wrote.
    ///
    /// # Errors
    ///
    /// As the reader fails, or with `InvalidData` for what is not a snapshot of this state.
    fn read_snapshot(&self, input: &mut dyn Read) -> std::io::Result<Self>;

    /// A digest of the whole state, equal on all nodes at equal positions.
    fn hash(&self) -> u128;
}

/// A command that this program cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log holds a command that this program cannot read: {reason}")]
pub struct Halt {
    /// What is wrong with it.
    pub reason: String,
}
