//! Who watches the demo, and what each offers.

use espalier_process::BitRate;

/// A viewer to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) upload: BitRate,
    pub(crate) consumer: bool,
}

/// Uplinks that feed one or two children of a stream, with room to spare but none for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uplinks {
    pub(crate) for_one: BitRate,
    pub(crate) for_two: BitRate,
}

/// How many children each viewer's uplink feeds, repeated over the audience. Two at the most, so that
/// a dozen viewers make a tree of at least four levels; 15 places a dozen, so that there is room for
/// standbys; 0 only watches.
const CHILDREN: [u8; 4] = [2, 2, 1, 0];

/// Makes an audience for a stream.
pub(crate) fn audience(size: u16, uplinks: Uplinks) -> Vec<Viewer> {
    CHILDREN
        .iter()
        .cycle()
        .take(usize::from(size))
        .map(|children| match children {
            0 => Viewer {
                upload: BitRate::default(),
                consumer: true,
            },
            1 => Viewer {
                upload: uplinks.for_one,
                consumer: false,
            },
            _ => Viewer {
                upload: uplinks.for_two,
                consumer: false,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINKS: Uplinks = Uplinks {
        for_one: BitRate::from_bits_per_second(3_000_000),
        for_two: BitRate::from_bits_per_second(5_000_000),
    };

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
        for size in 1..=200 {
            let viewers = audience(size, UPLINKS);
            assert_eq!(viewers.len(), usize::from(size));
            let depth = least_depth(&viewers, 1_850_000);
            assert!(size < 12 || depth >= 4, "{size} viewers, depth {depth}");
        }
    }

    #[test]
    fn consumers_offer_nothing() {
        let viewers = audience(12, UPLINKS);
        assert_eq!(viewers.iter().filter(|viewer| viewer.consumer).count(), 3);
        assert!(
            viewers
                .iter()
                .all(|v| v.consumer == (v.upload.bits_per_second() == 0))
        );
    }
}
