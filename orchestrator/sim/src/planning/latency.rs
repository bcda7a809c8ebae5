//! How far behind the CDN viewers are: the ways, a chunk's turn in each parent's uplink, and its checking.
//!
//! A parent sends a chunk to one child after the other, so the k-th has it after k times what the uplink
//! needs for one. A chunk is passed on when it is whole, long before its segment is.

use espalier_orchestrator_core::planner::{PeerSlot, SourceSlot, TreeId};

use super::audience::Audience;
use super::bounds::Depths;
use super::overlay::Overlay;
use super::scenario::{Network, Scenario};
use crate::dice::Dice;

/// Viewers whose latency is computed.
const SAMPLED: u64 = 20_000;
const FARTHEST: usize = 128;

/// The latencies of a sample of viewers, milliseconds, in order.
pub(crate) fn sample(
    overlay: &impl Overlay,
    audience: &Audience,
    network: &Network,
    trees: &[TreeId],
    now: u32,
    dice: &mut Dice,
) -> Vec<f64> {
    let slots = u64::from(audience.slots());
    let stripes = (trees.len() / audience.capacities.len()).max(1);
    let mut latencies = Vec::new();
    let mut siblings = Vec::new();
    for _ in 0..SAMPLED.min(2 * slots) {
        let slot = PeerSlot(u32::try_from(dice.below(slots.max(1))).unwrap_or(0));
        let viewer = audience.viewer(slot);
        if viewer.lives(now) {
            let tree = trees[usize::from(viewer.track) * stripes];
            latencies.extend(one(overlay, audience, network, slot, tree, &mut siblings));
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Of a sample of viewers with a parent, how many have one of their region, and of their provider.
pub(crate) fn near(
    overlay: &impl Overlay,
    audience: &Audience,
    trees: &[TreeId],
    now: u32,
    dice: &mut Dice,
) -> (f64, f64) {
    let slots = u64::from(audience.slots());
    let stripes = (trees.len() / audience.capacities.len()).max(1);
    let (mut all, mut region, mut provider) = (0.0, 0.0, 0.0);
    for _ in 0..SAMPLED.min(2 * slots) {
        let slot = PeerSlot(u32::try_from(dice.below(slots.max(1))).unwrap_or(0));
        let viewer = audience.viewer(slot);
        let tree = trees[usize::from(viewer.track) * stripes];
        let source = viewer.lives(now).then(|| overlay.source(slot, tree));
        if let Some(Some(SourceSlot::Peer(parent))) = source {
            let (one, other) = (viewer.spot, audience.viewer(parent).spot);
            all += 1.0;
            region += f64::from(u8::from(one.region == other.region));
            provider += f64::from(u8::from(one.provider == other.provider));
        }
    }
    let all = f64::max(all, 1.0);
    (region / all, provider / all)
}

/// One viewer's latency; none while it has no place.
fn one(
    overlay: &impl Overlay,
    audience: &Audience,
    network: &Network,
    slot: PeerSlot,
    tree: TreeId,
    siblings: &mut Vec<PeerSlot>,
) -> Option<f64> {
    let chunk_kbit = f64::from(network.chunk_bytes) * 8.0 / 1000.0;
    let mut at = slot;
    let mut sum = 0.0;
    for _ in 0..FARTHEST {
        sum += network.processing_ms;
        match overlay.source(at, tree)? {
            SourceSlot::Cdn => {
                let access = f64::from(audience.viewer(at).spot.access) / 10.0;
                return Some(sum + network.near_ms + access);
            }
            SourceSlot::Peer(parent) => {
                siblings.clear();
                overlay.children(parent, tree, siblings);
                let turn = siblings.iter().take_while(|child| **child != at).count() + 1;
                let uplink = audience.real_uplink_kbps(parent);
                let turn = u32::try_from(turn).unwrap_or(1);
                sum += f64::from(turn) * chunk_kbit / uplink * 1000.0;
                let (one, other) = (audience.viewer(at).spot, audience.viewer(parent).spot);
                sum += audience.geography().way_ms(one, other);
                at = parent;
            }
        }
    }
    None
}

/// What the latencies' distribution would be if as many as can be were at each depth, and each hop near: the
/// way, the checking, and half of what an uplink needs for a chunk to all children, which is the sold share of
/// what the stream needs for it. The fan-out cancels.
pub(crate) fn formula(scenario: &Scenario, depths: &Depths, viewers: u32) -> Vec<(f64, f64)> {
    let network = &scenario.network;
    let chunk_bits = f64::from(network.chunk_bytes) * 8.0;
    let rates = scenario.channel.tracks.iter().map(|track| track.rate_bps);
    let fastest = u32::try_from(rates.max().unwrap_or(1) / 1000).unwrap_or(u32::MAX);
    let chunk_ms = chunk_bits / f64::from(fastest.max(1));
    let sold: f64 = scenario
        .groups
        .iter()
        .map(|group| group.share * group.usable)
        .sum();
    let first = network.near_ms + network.processing_ms;
    let hop = first + sold / 2.0 * chunk_ms;
    let all = f64::from(viewers.max(1));
    let levels = (0_u32..).zip(depths.reach.iter().skip(1));
    levels
        .map(|(depth, reach)| (first + f64::from(depth) * hop, reach / all))
        .collect()
}
