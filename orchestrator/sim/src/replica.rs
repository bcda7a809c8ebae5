//! A shard's state that tells the audit what it applies.

use std::io;

use bytes::Bytes;
use espalier_orchestrator_core::state::ShardState;
use espalier_shards::{Halt, LogPosition, NodeId, Replica};

use crate::audit::Audit;

/// One node's replica of the shard.
#[derive(Clone)]
pub(crate) struct Audited {
    pub(crate) state: ShardState,
    node: NodeId,
    audit: Audit,
}

impl Audited {
    pub(crate) fn new(node: NodeId, audit: Audit) -> Self {
        Self {
            state: ShardState::default(),
            node,
            audit,
        }
    }
}

impl Replica for Audited {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        let answer = Replica::apply(&mut self.state, at, command)?;
        self.audit
            .applied(self.node, at, command, Replica::hash(&self.state));
        Ok(answer)
    }

    fn write_snapshot(&self, out: &mut dyn io::Write) -> io::Result<()> {
        Replica::write_snapshot(&self.state, out)
    }

    fn read_snapshot(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        Ok(Self {
            state: Replica::read_snapshot(&self.state, input)?,
            ..self.clone()
        })
    }

    fn hash(&self) -> u128 {
        Replica::hash(&self.state)
    }
}
