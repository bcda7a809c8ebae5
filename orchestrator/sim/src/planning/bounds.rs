//! What no planner can beat, computed from the audience of the moment.
//!
//! - **Roots**: with N viewers and S slots at least N − S are fed by the CDN, and at least as many as are
//!   wanted. Where NATs part the audience, the same holds for every class that only some can serve.
//! - **Depth**: with R roots at most F₁ = R viewers have depth 1, F_{d+1} = R + C(F_d) at most d + 1,
//!   where C(n) are the slots of the n strongest. So the mean depth is at least Σ_{d≥0} (N − min(N, F_d)) / N.
//! - **Interruptions**: each viewer but the roots needs a slot, and hangs on the life of whoever offers it:
//!   the N − R slots of the least hazard. One at depth d ≥ 3 also hangs on d − 2 others, whose hazard is at
//!   least the smallest.

/// The most of what can be fed, whoever serves.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Depths {
    /// The mean depth is at least that.
    pub(crate) mean: f64,
    /// The deepest is at least that deep.
    pub(crate) least: u32,
    /// For each depth from 0 on, how many can be at most as deep.
    pub(crate) reach: Vec<f64>,
}

/// Bounds the depth of `n` viewers under `roots` roots; `capacities[c]` of them have `c` slots.
pub(crate) fn depths(n: u32, roots: u32, capacities: &[u32]) -> Depths {
    let n = f64::from(n);
    let mut reach = vec![0.0];
    let mut at = f64::from(roots).min(n);
    let mut sum = n;
    while at < n {
        reach.push(at);
        sum += n - at;
        let next = (f64::from(roots) + strongest(at, capacities)).min(n);
        // Without enough slots nobody reaches the rest; the roots' bound says so.
        if next <= at {
            break;
        }
        at = next;
    }
    reach.push(at);
    Depths {
        mean: if n > 0.0 { sum / n } else { 0.0 },
        least: u32::try_from(reach.len() - 1).unwrap_or(0),
        reach,
    }
}

/// The slots of the so many that have most.
fn strongest(mut many: f64, capacities: &[u32]) -> f64 {
    let mut slots = 0.0;
    for (capacity, count) in capacities.iter().enumerate().rev() {
        let taken = f64::from(*count).min(many);
        slots += taken * f64::from(u32::try_from(capacity).unwrap_or(u32::MAX));
        many -= taken;
        if many <= 0.0 {
            break;
        }
    }
    slots
}

/// All slots together.
pub(crate) fn slots(capacities: &[u32]) -> u64 {
    let each = (0_u64..).zip(capacities);
    each.map(|(capacity, count)| capacity * u64::from(*count))
        .sum()
}

/// Bounds the roots of `n` viewers with so many slots.
pub(crate) fn roots(n: u32, slots: u64, target: u32) -> u32 {
    let missing = u64::from(n).saturating_sub(slots);
    u32::try_from(missing)
        .unwrap_or(u32::MAX)
        .max(target.min(n))
}

/// Bounds the roots where classes of NATs part the audience: open, port-restricted, symmetric, without UDP,
/// each with its viewers and slots. Every set of classes that only some others can serve has a bound.
pub(crate) fn roots_behind_nats(classes: &[(u32, u64); 4], target: u32) -> u32 {
    let [open, restricted, symmetric, none] = *classes;
    let missing = |viewers: u32, slots: u64| u64::from(viewers).saturating_sub(slots);
    let served = [
        missing(symmetric.0, open.1),
        missing(symmetric.0 + restricted.0, open.1 + restricted.1),
        missing(
            symmetric.0 + restricted.0 + open.0,
            open.1 + restricted.1 + symmetric.1,
        ),
    ];
    let most = served.into_iter().max().unwrap_or(0);
    let all = u64::from(none.0) + most;
    let n = open.0 + restricted.0 + symmetric.0 + none.0;
    u32::try_from(all).unwrap_or(u32::MAX).max(target.min(n))
}

/// Slots by the hazard of who offers them, in bands of a few per cent.
#[derive(Debug)]
pub(crate) struct Hazards {
    slots: Vec<u64>,
    sums: Vec<f64>,
    least: f64,
}

const BANDS: usize = 1024;

impl Hazards {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![0; BANDS],
            sums: vec![0.0; BANDS],
            least: f64::INFINITY,
        }
    }

    /// Counts a viewer with slots, and the chance per second that it goes.
    pub(crate) fn add(&mut self, hazard: f64, slots: u32) {
        if slots == 0 {
            return;
        }
        let band = band(hazard);
        self.slots[band] += u64::from(slots);
        self.sums[band] += hazard * f64::from(slots);
        self.least = self.least.min(hazard);
    }

    /// Bounds the interruptions per viewer and second that parents alone cause: the cheapest `needed` slots
    /// over `n` viewers.
    pub(crate) fn parents(&self, n: u32, roots: u32) -> f64 {
        let mut needed = u64::from(n.saturating_sub(roots));
        let mut sum = 0.0;
        for (slots, hazards) in self.slots.iter().zip(&self.sums) {
            if needed == 0 {
                break;
            }
            let taken = needed.min(*slots);
            if *slots > 0 {
                sum += hazards * ratio(taken, *slots);
            }
            needed -= taken;
        }
        sum / f64::from(n.max(1))
    }

    /// Bounds the interruptions per viewer and second that those above the parents cause.
    pub(crate) fn above(&self, n: u32, depths: &Depths) -> f64 {
        if !self.least.is_finite() {
            return 0.0;
        }
        let deeper = depths
            .reach
            .iter()
            .skip(2)
            .map(|reach| f64::from(n) - reach);
        self.least * deeper.sum::<f64>() / f64::from(n.max(1))
    }
}

/// Hazards from once in a thousand years to a thousand times a second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value has been brought into the type's range"
)]
fn band(hazard: f64) -> usize {
    let log = (hazard.max(1e-10).log10() + 10.0) / 13.0;
    ((log * 1023.0).clamp(0.0, 1023.0)) as usize
}

#[expect(clippy::cast_precision_loss, reason = "both are counts of peers")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Counts capacities into classes, for those who have them one by one.
#[cfg(test)]
fn classes(capacities: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; 8];
    for capacity in capacities {
        counts[*capacity as usize] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All trees of these peers: each peer's parent is a root mark or another peer.
    fn best(capacities: &[u32], roots: u32, cost: &dyn Fn(&[Option<usize>]) -> f64) -> Option<f64> {
        let mut parents = vec![None; capacities.len()];
        let mut best = None;
        search(0, &mut parents, capacities, roots, cost, &mut best);
        best
    }

    fn search(
        at: usize,
        parents: &mut Vec<Option<usize>>,
        capacities: &[u32],
        roots: u32,
        cost: &dyn Fn(&[Option<usize>]) -> f64,
        best: &mut Option<f64>,
    ) {
        if at == parents.len() {
            let fed = parents.iter().filter(|parent| parent.is_none()).count();
            if fed == roots as usize && (0..at).all(|peer| depth(peer, parents).is_some()) {
                let cost = cost(parents);
                if best.is_none_or(|best| cost < best) {
                    *best = Some(cost);
                }
            }
            return;
        }
        parents[at] = None;
        search(at + 1, parents, capacities, roots, cost, best);
        for parent in 0..capacities.len() {
            let children = parents[..at]
                .iter()
                .filter(|of| **of == Some(parent))
                .count();
            if parent != at && children < capacities[parent] as usize {
                parents[at] = Some(parent);
                search(at + 1, parents, capacities, roots, cost, best);
                parents[at] = None;
            }
        }
    }

    fn depth(peer: usize, parents: &[Option<usize>]) -> Option<u32> {
        let mut at = peer;
        for depth in 1..=u32::try_from(parents.len()).unwrap() {
            match parents[at] {
                None => return Some(depth),
                Some(parent) => at = parent,
            }
        }
        None
    }

    fn ancestors(peer: usize, parents: &[Option<usize>]) -> Vec<usize> {
        core::iter::successors(parents[peer], |at| parents[*at]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn the_bound_of_the_mean_depth_is_the_best_tree_s(
            capacities in proptest::collection::vec(0_u32..4, 1..6),
            roots in 1_u32..3,
        ) {
            let n = u32::try_from(capacities.len()).unwrap();
            let bound = depths(n, roots, &classes(&capacities));
            let mean = |parents: &[Option<usize>]| {
                let sum: u32 = (0..parents.len()).map(|peer| depth(peer, parents).unwrap()).sum();
                f64::from(sum) / f64::from(n)
            };
            if let Some(best) = best(&capacities, roots.min(n), &mean) {
                prop_assert!((best - bound.mean).abs() < 1e-9, "{best} {bound:?}");
            }
        }

        #[test]
        fn no_tree_has_fewer_roots(capacities in proptest::collection::vec(0_u32..3, 1..6)) {
            let n = u32::try_from(capacities.len()).unwrap();
            let bound = roots(n, slots(&classes(&capacities)), 1);
            for fewer in 0..bound {
                prop_assert_eq!(best(&capacities, fewer, &|_| 0.0), None);
            }
            prop_assert!(best(&capacities, bound, &|_| 0.0).is_some());
        }

        #[test]
        fn no_tree_is_interrupted_less(
            peers in proptest::collection::vec((0_u32..4, 1_u32..50), 1..6),
            roots in 1_u32..3,
        ) {
            let capacities: Vec<_> = peers.iter().map(|(capacity, _)| *capacity).collect();
            let hazard = |peer: usize| f64::from(peers[peer].1) / 1e4;
            let n = u32::try_from(peers.len()).unwrap();
            let mut hazards = Hazards::new();
            (0..peers.len()).for_each(|peer| hazards.add(hazard(peer), capacities[peer]));
            let depths = depths(n, roots, &classes(&capacities));
            let bound = hazards.parents(n, roots) + hazards.above(n, &depths);
            let rate = |parents: &[Option<usize>]| {
                let of = |peer| ancestors(peer, parents).into_iter().map(hazard).sum::<f64>();
                (0..parents.len()).map(of).sum::<f64>() / f64::from(n)
            };
            if let Some(best) = best(&capacities, roots.min(n), &rate) {
                // A band's slots count with its mean hazard.
                prop_assert!(bound <= best * 1.03 + 1e-12, "{bound} {best}");
            }
        }

        #[test]
        fn no_pairing_behind_nats_has_fewer_roots(
            classes in proptest::collection::vec((0_u32..5, 0_u64..6), 4),
        ) {
            use super::super::network::could_connect;
            use espalier_orchestrator_core::NatClass::{NoUdp, Open, PortRestricted, Symmetric};
            let all = [Open, PortRestricted, Symmetric, NoUdp];
            let classes: [(u32, u64); 4] = classes.try_into().unwrap();
            let viewers: Vec<_> = (0..4)
                .flat_map(|class| core::iter::repeat_n(class, classes[class].0 as usize))
                .collect();
            let slots: Vec<_> = (0..4)
                .flat_map(|class| core::iter::repeat_n(class, usize::try_from(classes[class].1).unwrap()))
                .collect();
            // A maximum matching of viewers and slots, by augmenting paths.
            let mut taken: Vec<Option<usize>> = vec![None; slots.len()];
            let mut fed = 0_u32;
            for viewer in 0..viewers.len() {
                let mut seen = vec![false; slots.len()];
                fed += u32::from(augment(viewer, &mut seen, &mut taken, &|viewer, slot| {
                    could_connect(all[viewers[viewer]], all[slots[slot]])
                }));
            }
            let n = u32::try_from(viewers.len()).unwrap();
            prop_assert_eq!(roots_behind_nats(&classes, 0), n - fed);
        }
    }

    fn augment(
        viewer: usize,
        seen: &mut Vec<bool>,
        taken: &mut Vec<Option<usize>>,
        fits: &dyn Fn(usize, usize) -> bool,
    ) -> bool {
        for slot in 0..taken.len() {
            if seen[slot] || !fits(viewer, slot) {
                continue;
            }
            seen[slot] = true;
            let before = taken[slot];
            if before.is_none_or(|other| augment(other, seen, taken, fits)) {
                taken[slot] = Some(viewer);
                return true;
            }
        }
        false
    }

    #[test]
    fn the_prototype_s_audience_has_its_bound() {
        // 1,000 roots, everyone 2 slots: 1,000, 3,000, 7,000, …
        let capacities = classes(&[2; 10_000]);
        let depths = depths(10_000, 1_000, &capacities);
        assert_eq!(depths.reach, [0.0, 1_000.0, 3_000.0, 7_000.0, 10_000.0]);
        assert_eq!(depths.least, 4);
    }
}
