//! Sends peers to other nodes while this one is drained, leaves the cluster, or is about to stop; and says to
//! the other nodes how many peers are here.
//!
//! The probes say meanwhile that the node is not ready, so that balancers in front of it send nobody here.
//! Newcomers are let in all the same, since some know no other node: they are told of the others, and to go.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use espalier_cluster::ClusterHandle;
use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::state::NodePhase;

use crate::directory::Directory;
use crate::gateway::MovePace;
use crate::readiness::Readiness;

/// How often peers are told to go, while they are.
const TELL: Duration = Duration::from_millis(50);
/// How often it is looked whether they are to go, and how many there are.
const LOOK: Duration = Duration::from_millis(200);

/// The task's state.
pub(crate) struct Mover {
    directory: Arc<Directory>,
    cluster: ClusterHandle,
    readiness: Readiness,
    arrivals_per_second: u32,
}

impl Mover {
    pub(crate) fn new(
        directory: Arc<Directory>,
        cluster: ClusterHandle,
        readiness: Readiness,
        arrivals_per_second: u32,
    ) -> Self {
        Self {
            directory,
            cluster,
            readiness,
            arrivals_per_second,
        }
    }

    /// Works for as long as the future is polled.
    pub(crate) async fn run(self) {
        let begun = Instant::now();
        let mut pace: Option<MovePace> = None;
        loop {
            let sessions = self.directory.sessions();
            self.cluster
                .tell_sessions(u32::try_from(sessions).unwrap_or(u32::MAX));
            let go = self.are_to_go();
            if go != pace.is_some() {
                tracing::info!(
                    sessions,
                    go,
                    "whether peers are sent to other nodes has changed"
                );
                self.readiness.set(!go).await;
                pace = go.then(|| MovePace::new(self.arrivals_per_second));
            }
            match &mut pace {
                Some(pace) => {
                    self.tell(pace, begun.elapsed());
                    tokio::time::sleep(TELL).await;
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn are_to_go(&self) -> bool {
        let me = self.cluster.identity().node;
        let phase = self.cluster.meta().read(|_, state| {
            let record = state.nodes().get(&NodeId(me));
            record.map(|record| record.phase)
        });
        let unwanted = match phase {
            Some(NodePhase::Draining | NodePhase::Leaving) => true,
            Some(NodePhase::Joining | NodePhase::Active) | None => false,
        };
        let leaving = unwanted || self.cluster.is_ending(me);
        leaving && !self.directory.ownership().endpoints().is_empty()
    }

    fn tell(&self, pace: &mut MovePace, now: Duration) {
        let mut may = pace.may_tell(now);
        for channel in self.directory.all() {
            if may == 0 {
                return;
            }
            let told = channel.board.send_elsewhere(may);
            pace.told(told);
            may -= told;
        }
    }
}
