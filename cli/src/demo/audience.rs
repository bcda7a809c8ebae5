//! Who watches the demo, and what each offers.

use espalier_process::BitRate;

/// A viewer to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) upload: BitRate,
    pub(crate) consumer: bool,
}

/// How many children each viewer's upload can feed, repeated over the audience. Two at the most, so
/// that a dozen viewers make a tree of at least four levels; 15 places a dozen, so that there is room for
/// standbys; `None` only watches.
const CHILDREN: [Option<u64>; 4] = [Some(2), Some(2), Some(1), None];

/// Makes an audience for a stream of which one child takes `per_child`.
pub(crate) fn audience(size: u16, per_child: BitRate) -> Vec<Viewer> {
    CHILDREN
        .iter()
        .cycle()
        .take(usize::from(size))
        .map(|children| {
            let upload = children
                .unwrap_or(0)
                .saturating_mul(per_child.bits_per_second());
            Viewer {
                upload: BitRate::from_bits_per_second(upload),
                consumer: children.is_none(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How deep a tree must be at least if every viewer stands where the most upload is.
    fn least_depth(viewers: &[Viewer], per_child: u64) -> usize {
        let mut capacities: Vec<u64> = viewers
            .iter()
            .map(|viewer| viewer.upload.bits_per_second() / per_child)
            .collect();
        capacities.sort_unstable_by(|a, b| b.cmp(a));
        let (mut depth, mut width, mut waiting) = (0, 1, &capacities[..]);
        while !waiting.is_empty() && width > 0 {
            let level = waiting.len().min(width);
            width = waiting[..level]
                .iter()
                .map(|capacity| usize::try_from(*capacity).unwrap())
                .sum();
            waiting = &waiting[level..];
            depth += 1;
        }
        assert!(
            waiting.is_empty(),
            "{} find no place under one root",
            waiting.len()
        );
        depth
    }

    #[test]
    fn every_audience_fits_under_one_root_and_a_dozen_is_four_deep() {
        let per_child = BitRate::from_bits_per_second(2_500_000);
        for size in 1..=200 {
            let viewers = audience(size, per_child);
            assert_eq!(viewers.len(), usize::from(size));
            let depth = least_depth(&viewers, 2_500_000);
            assert!(size < 12 || depth >= 4, "{size} viewers, depth {depth}");
        }
    }

    #[test]
    fn consumers_offer_nothing() {
        let viewers = audience(12, BitRate::from_bits_per_second(1));
        assert_eq!(viewers.iter().filter(|viewer| viewer.consumer).count(), 3);
        assert!(
            viewers
                .iter()
                .all(|v| v.consumer == (v.upload.bits_per_second() == 0))
        );
    }
}
