//! The planned end of a node's leaderships.

use std::collections::BTreeSet;
use std::time::Duration;

use espalier_shards::NodeId;
use espalier_shards::balance::{LedGroup, plan_moves};
use tokio::time::{Instant, sleep};

use crate::handle::ClusterHandle;
use crate::standing::may_lead;
use crate::steward::CAUGHT_UP;

/// How long a stopping node tries to hand its leaderships over.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long a leadership that was handed over may take to arrive.
const PAUSE: Duration = Duration::from_millis(50);

impl ClusterHandle {
    /// Says that this node is about to stop, and has other nodes lead what it leads, if there are any that
    /// can. It takes no leadership back while it goes on.
    pub async fn hand_over(&self) {
        self.standing.send_modify(|own| own.ending = true);
        let until = Instant::now() + HAND_OVER;
        while !self.others_lead_all() {
            let state = self.meta().read(|_, state| state.clone());
            let own = self.standing.borrow().clone();
            let me = (self.identity.node, &own);
            let eligible = may_lead(&state, me, &self.neighbours.borrow());
            if eligible.is_empty() {
                tracing::info!("no other node is there to take this node's leaderships over");
                return;
            }
            self.move_all(&eligible).await;
            if Instant::now() > until {
                tracing::warn!("some leaderships were not handed over in time");
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// How many groups this node leads.
    #[must_use]
    pub fn leads(&self) -> usize {
        let me = Some(self.identity.node);
        let groups = self.groups.iter();
        groups.filter(|group| group.status().leader == me).count()
    }

    fn others_lead_all(&self) -> bool {
        let me = self.identity.node;
        let mut groups = self.groups.iter();
        groups.all(|group| group.status().leader.is_some_and(|leader| leader != me))
    }

    async fn move_all(&self, eligible: &BTreeSet<NodeId>) {
        let me = self.identity.node;
        let statuses: Vec<_> = self.groups.iter().map(|group| group.status()).collect();
        let led: Vec<LedGroup> = statuses
            .iter()
            .filter_map(|status| {
                let leader = status.leader?;
                let caught_up = match leader == me {
                    true => status.caught_up(CAUGHT_UP),
                    // Not this node's to move.
                    false => BTreeSet::new(),
                };
                let group = status.group;
                Some(LedGroup {
                    group,
                    leader,
                    caught_up,
                })
            })
            .collect();
        for step in plan_moves(&led, eligible, led.len()) {
            if let Some(group) = self.groups.iter().find(|group| group.group() == step.group) {
                group.transfer(step.to).await;
            }
        }
    }
}
