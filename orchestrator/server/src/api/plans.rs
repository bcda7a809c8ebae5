//! What other policies would do: tried on copies of the channels' records, on a thread where it holds nobody
//! up, one at a time.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use espalier_orchestrator_core::{PlanFigures, Policy, WhatIf, what_if};
use espalier_proto::v1;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::channel::HandleError;
use crate::directory::Channel;

/// Tries policies.
pub(super) struct Plans {
    /// A trial takes a core for as long as it lasts.
    turn: Arc<Semaphore>,
}

impl Default for Plans {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Plans {
    /// Tries a policy on a channel that this node owns.
    pub(super) async fn plan(
        &self,
        channel: &Channel,
        policy: Policy,
    ) -> Result<v1::PlanChannelResponse, Status> {
        let turn = Arc::clone(&self.turn);
        let turn = turn.try_acquire_owned().map_err(|_| HandleError::Busy)?;
        let view = channel.actor()?.look().await?;
        let absent = view.nodes.iter().filter(|node| !node.session);
        let absent: BTreeSet<_> = absent.map(|node| node.peer).collect();
        let records = channel.records().ok_or(HandleError::NoOwner)?;
        let trial = tokio::task::spawn_blocking(move || {
            // Kept until the end, also when nobody waits for it any more.
            let _turn = turn;
            what_if(&records, &absent, policy)
        });
        let plan = trial.await.map_err(|error| {
            tracing::error!(%error, "a policy could not be tried");
            Status::internal("the policy could not be tried")
        })?;
        Ok(plan_out(&plan))
    }
}

fn plan_out(plan: &WhatIf) -> v1::PlanChannelResponse {
    v1::PlanChannelResponse {
        now: Some(figures_out(&plan.now)),
        then: Some(figures_out(&plan.then)),
        moves: plan.moves,
        peers_moved: plan.peers_moved,
        takes: duration_out(plan.takes),
        settled: plan.settled,
    }
}

fn figures_out(figures: &PlanFigures) -> v1::PlanFigures {
    v1::PlanFigures {
        peers: figures.peers,
        roots: figures.roots,
        max_depth: figures.max_depth,
        mean_depth: f64::from(figures.mean_depth_permille) / 1000.0,
        offload: f64::from(figures.offload_permille) / 1000.0,
    }
}

fn duration_out(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
