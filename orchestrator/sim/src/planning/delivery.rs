//! What viewers see of a broken path: a fluid model of buffers.
//!
//! A source that vanishes is noticed after the detection time; then the standby is asked, and if that is
//! gone too, the CDN. Until then everyone below plays from its buffer, which refills afterwards at what
//! uplinks have left. Somebody stalls where the breaks on its path come so close together that they add up
//! to more than the buffer.
//!
//! Each break is looked at once its buffer would be full again, when all others that could add to it are
//! known. Only the last break of an edge counts; breaks at the same time add up, although they overlap: what
//! is reported is rather too much.

use std::collections::VecDeque;

use espalier_orchestrator_core::planner::{PeerSlot, SourceSlot, TreeId};

use super::overlay::Overlay;
use super::scenario::Network;

/// An edge that broke: when data flowed again, and for how long it had not.
#[derive(Debug, Clone, Copy, Default)]
struct Break {
    over: u32,
    lasted: u32,
}

/// What was found of one break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stall {
    /// Where the subtree that stalled begins.
    pub(crate) peer: PeerSlotOrNone,
    pub(crate) tree: u8,
    /// How long each of it stood still.
    pub(crate) ms: u32,
}

/// A slot; none by default.
pub(crate) type PeerSlotOrNone = Option<PeerSlot>;

/// The breaks of the last moments.
#[derive(Debug)]
pub(crate) struct Delivery {
    buffer_ms: u32,
    trees: Vec<TreeId>,
    breaks: Vec<Break>,
    /// To be looked at: when, which slot and tree, and which break.
    pending: VecDeque<(u32, PeerSlot, u8, u32)>,
}

/// The longest way to the CDN that is looked at.
const FARTHEST: usize = 128;

impl Delivery {
    pub(crate) fn new(network: &Network, trees: Vec<TreeId>) -> Self {
        Self {
            buffer_ms: network.buffer_ms,
            trees,
            breaks: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// The slot is a newcomer's.
    pub(crate) fn forget(&mut self, slot: PeerSlot) {
        let trees = self.trees.len();
        let first = slot.0 as usize * trees;
        if let Some(breaks) = self.breaks.get_mut(first..first + trees) {
            breaks.fill(Break::default());
        }
    }

    /// The peer's source fell silent at `from`, and data flow again `lasted` later.
    pub(crate) fn broke(&mut self, slot: PeerSlot, tree: u8, from: u32, lasted: u32) {
        let at = slot.0 as usize * self.trees.len() + usize::from(tree);
        if at >= self.breaks.len() {
            self.breaks.resize(at + self.trees.len(), Break::default());
        }
        let over = from + lasted;
        self.breaks[at] = Break { over, lasted };
        // At twice the stream's rate, what is missing is made up for in as long as it has been missing.
        self.pending
            .push_back((over + self.buffer_ms, slot, tree, over));
    }

    /// Looks at the next break whose time has come; `None`: there is none.
    pub(crate) fn settle_next(&mut self, overlay: &impl Overlay, now: u32) -> Option<Stall> {
        let (due, slot, tree, over) = self.pending.front().copied()?;
        if due > now {
            return None;
        }
        self.pending.pop_front();
        let own = self.break_of(slot, tree);
        // Who has left meanwhile, or broke again since, is not looked at for this one.
        if own.over != over {
            return Some(Stall::default());
        }
        let missing = self.missing(overlay, slot, tree, own);
        let ms = missing.saturating_sub(self.buffer_ms);
        let peer = (ms > 0).then_some(slot);
        Some(Stall { peer, tree, ms })
    }

    /// Adds up what was missing at the end of the last of those breaks on the way to the CDN that touch
    /// this one.
    fn missing(&self, overlay: &impl Overlay, slot: PeerSlot, tree: u8, own: Break) -> u32 {
        let mut last = own.over;
        let mut sum = own.lasted;
        let mut at = slot;
        for _ in 0..FARTHEST {
            let Some(SourceSlot::Peer(parent)) = overlay.source(at, self.trees[usize::from(tree)])
            else {
                break;
            };
            at = parent;
            let other = self.break_of(parent, tree);
            let apart = last.abs_diff(other.over);
            if other.lasted > 0 && apart < self.buffer_ms {
                // Of the earlier one, what was made up for until the later one ended is not missing.
                let earlier = if other.over < last { other.lasted } else { sum };
                let later = if other.over < last { sum } else { other.lasted };
                sum = later + earlier.saturating_sub(apart);
                last = last.max(other.over);
            }
        }
        sum
    }

    fn break_of(&self, slot: PeerSlot, tree: u8) -> Break {
        let at = slot.0 as usize * self.trees.len() + usize::from(tree);
        self.breaks.get(at).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::Scenario;
    use crate::planning::yardstick::{Rule, Yardstick};
    use espalier_orchestrator_core::planner::Newcomer;
    use espalier_orchestrator_core::{PeerId, PeerProfile, PeerRole, TrackIndex};
    use std::time::Duration;

    const TREE: TreeId = TreeId {
        track: TrackIndex(0),
        stripe: 0,
    };

    /// A chain of three under the CDN.
    fn chain() -> (Yardstick, Vec<PeerSlot>) {
        let mut overlay = Yardstick::new(Rule::MinimumDepth, 1_000, 1, 1, 7);
        let slots = (0..3_u64).map(|number| {
            let now = Duration::from_secs(number);
            let slot = overlay.join(
                Newcomer {
                    id: PeerId(number),
                    role: PeerRole::Contributor,
                    upload_bps: 1_000_000,
                    profile: PeerProfile::default(),
                    wanted: Vec::new(),
                },
                now,
            );
            overlay.arrived(slot, TREE, now);
            slot
        });
        let slots = slots.collect();
        (overlay, slots)
    }

    fn stalls(breaks: &[(usize, u32, u32)]) -> u32 {
        let (overlay, slots) = chain();
        let network = Scenario::load("steady").unwrap().network;
        let mut delivery = Delivery::new(&network, vec![TREE]);
        for (slot, from, lasted) in breaks {
            delivery.broke(slots[*slot], 0, *from, *lasted);
        }
        let mut ms = 0;
        while let Some(stall) = delivery.settle_next(&overlay, 1_000_000) {
            ms = ms.max(stall.ms);
        }
        ms
    }

    #[test]
    fn a_break_within_the_buffer_is_not_seen_and_a_longer_one_is() {
        assert_eq!(stalls(&[(2, 1_000, 4_000)]), 0);
        assert_eq!(stalls(&[(2, 1_000, 4_500)]), 500);
    }

    #[test]
    fn breaks_on_one_path_add_up_unless_there_was_time_to_make_up_for_the_first() {
        assert_eq!(stalls(&[(1, 1_000, 2_500), (2, 1_500, 2_500)]), 500);
        assert_eq!(stalls(&[(1, 1_000, 2_500), (2, 10_000, 2_500)]), 0);
        assert_eq!(stalls(&[(2, 1_000, 2_500), (1, 1_500, 2_500)]), 500);
    }
}
