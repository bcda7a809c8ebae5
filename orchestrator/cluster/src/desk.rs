//! The cluster's own state, from any node: read as current, and changed, at whichever node leads.
//!
//! Every operation changes nothing when it is done again, so what may or may not have happened is simply
//! asked for again until the time is up.

use std::time::Duration;

use bytes::Bytes;
use espalier_orchestrator_core::state::{MetaEntry, MetaOp, MetaState, Outcome};
use espalier_proto::cluster::v1 as proto;
use espalier_shards::{GroupId, Leadership, NodeId, ProposeError};
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;

use crate::error::MetaError;
use crate::network::incoming::{MetaGroup, propose_here};
use crate::network::lines::{Client, Lines, client};

/// How long a change or a read may take over all its attempts.
const WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(25);

/// Reads and changes the cluster's own state.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) meta: MetaGroup,
    pub(crate) lines: Lines,
}

enum Attempt<T> {
    Done(T),
    /// Nothing happened.
    Again,
    /// Something may have happened.
    Unknown,
}

impl Desk {
    /// Has operations done, at whichever node leads the meta group; all of them, or the first refusal.
    pub(crate) async fn change(&self, ops: Vec<MetaOp>) -> Result<(), MetaError> {
        let entry = MetaEntry::new(0, ops);
        let deadline = Instant::now() + WITHIN;
        let mut unknown = false;
        while Instant::now() < deadline {
            let attempt = timeout_at(deadline, self.propose(entry.clone())).await;
            match attempt.unwrap_or(Attempt::Unknown) {
                Attempt::Done(outcomes) => match judge(&outcomes)? {
                    // The leader changed between its asking and its writing.
                    Judged::Stale => {}
                    Judged::Applied => return Ok(()),
                },
                Attempt::Again => {}
                Attempt::Unknown => unknown = true,
            }
            sleep(PAUSE).await;
        }
        Err(if unknown {
            MetaError::Unknown
        } else {
            MetaError::Unavailable
        })
    }

    /// The state with everything in it that was committed before the call.
    pub(crate) async fn current(&self) -> Result<MetaState, MetaError> {
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            if let Ok(Attempt::Done(index)) = timeout_at(deadline, self.read_index()).await {
                let mut applied = self.meta.applied();
                let reached = applied.wait_until(|at| at.is_some_and(|at| at.index >= index));
                if let Ok(Ok(_)) = timeout_at(deadline, reached).await {
                    return Ok(self.meta.state().1);
                }
            }
            sleep(PAUSE).await;
        }
        Err(MetaError::Unavailable)
    }

    async fn propose(&self, entry: MetaEntry) -> Attempt<Bytes> {
        let leader = match self.meta.current_leadership() {
            Leadership::Leader { .. } | Leadership::Preparing { .. } => {
                return match propose_here(&self.meta, entry).await {
                    Ok(outcomes) => Attempt::Done(outcomes),
                    Err(ProposeError::Unknown { .. }) => Attempt::Unknown,
                    Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. }) => {
                        Attempt::Again
                    }
                };
            }
            Leadership::Follower { leader, .. } => leader,
            Leadership::Unknown | Leadership::Stopped => return Attempt::Again,
        };
        let (Some(mut client), Ok(body)) = (self.control(leader), entry.encode()) else {
            return Attempt::Again;
        };
        let to = Some(self.lines.destination(leader, GroupId::META));
        match client
            .propose(proto::RaftMessage {
                to,
                body: body.into(),
            })
            .await
        {
            Ok(answer) => Attempt::Done(answer.into_inner().body),
            Err(status) if status.code() == Code::Aborted => Attempt::Unknown,
            Err(_) => Attempt::Again,
        }
    }

    async fn read_index(&self) -> Attempt<u64> {
        let leadership = self.meta.current_leadership();
        let Some(leader) = leadership.other() else {
            return match self.meta.read_index().await {
                Ok(at) => Attempt::Done(at.index),
                Err(_) => Attempt::Again,
            };
        };
        let Some(mut client) = self.control(leader) else {
            return Attempt::Again;
        };
        let to = Some(self.lines.destination(leader, GroupId::META));
        let message = proto::RaftMessage {
            to,
            body: Bytes::new(),
        };
        match client.read_index(message).await {
            Ok(answer) => Attempt::Done(answer.into_inner().index),
            Err(_) => Attempt::Again,
        }
    }

    fn control(&self, node: NodeId) -> Option<Client> {
        let members = self.meta.status().members;
        let address = &members.get(&node)?.cluster_address;
        Some(client(self.lines.to(node, address).ok()?.control))
    }
}

enum Judged {
    Applied,
    Stale,
}

fn judge(outcomes: &[u8]) -> Result<Judged, MetaError> {
    use espalier_orchestrator_core::state::Refusal;
    let outcomes = Outcome::decode_all(outcomes).map_err(|_| MetaError::Answer)?;
    for outcome in outcomes {
        match outcome {
            Outcome::Applied => {}
            Outcome::Refused(Refusal::Term { .. }) => return Ok(Judged::Stale),
            Outcome::Refused(refusal) => return Err(MetaError::Refused(refusal)),
        }
    }
    Ok(Judged::Applied)
}
