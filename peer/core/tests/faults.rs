//! Random trees, random faults, one seed: whatever happens, nothing false is played, nothing twice, and
//! while the CDN is there nothing is missed.

mod network;

use std::time::Duration;

use espalier_peer_core::Source;
use network::{CdnFault, MS, Network, Origin, TARGET, peer};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Fault {
    Kill(u64),
    Freeze(u64, u64),
    Cut(u64, u64),
    Corrupt(u64),
    Signer(u64),
    Cdn(u64, u8),
    /// The origin stands still for a while.
    Origin(u64),
    /// Assigns a peer another source and standby.
    Move(u64, u64, u64, bool),
}

fn fault() -> impl Strategy<Value = Fault> {
    let id = 1_u64..9;
    prop_oneof![
        id.clone().prop_map(Fault::Kill),
        (id.clone(), 500_u64..8_000).prop_map(|(id, ms)| Fault::Freeze(id, ms)),
        (id.clone(), id.clone()).prop_map(|(a, b)| Fault::Cut(a, b)),
        id.clone().prop_map(Fault::Corrupt),
        (1_000_u64..12_000).prop_map(Fault::Signer),
        (1_000_u64..12_000).prop_map(Fault::Origin),
        (200_u64..2_000, 0_u8..3).prop_map(|(ms, kind)| Fault::Cdn(ms, kind)),
        (id.clone(), id.clone(), id, any::<bool>())
            .prop_map(|(a, b, c, d)| Fault::Move(a, b, c, d)),
    ]
}

/// Peers, each below one with a lower number (0: the CDN), with a standby likewise.
fn shape() -> impl Strategy<Value = Vec<(u64, u64)>> {
    (0_u64..8).prop_map(|_| ()).prop_flat_map(|()| {
        let edges: Vec<_> = (1_u64..9).map(|id| (0..id, 0..id)).collect();
        edges
    })
}

fn source(id: u64) -> Source {
    if id == 0 {
        Source::Cdn
    } else {
        Source::Peer(peer(id))
    }
}

struct Forest {
    network: Network,
    edges: Vec<(u64, u64)>,
}

impl Forest {
    fn plant(&mut self, make_before_break: bool) {
        for (id, (above, standby)) in (1..).zip(self.edges.clone()) {
            let below = |edge: &(u64, u64)| edge.0 == id || edge.1 == id;
            let children: Vec<_> = (1..)
                .zip(&self.edges)
                .filter(|(child, edge)| below(edge) && *child != id)
                .map(|(child, edge)| (peer(child), edge.0 != id))
                .collect();
            let standby = (standby != above).then(|| source(standby));
            self.network.assign(
                peer(id),
                source(above),
                standby,
                &children,
                make_before_break,
            );
        }
    }

    fn apply(&mut self, fault: &Fault) {
        match *fault {
            Fault::Kill(id) => self.network.kill(peer(id)),
            Fault::Freeze(id, ms) => {
                self.network.freeze(peer(id));
                self.network.run_for(MS * u32::try_from(ms).expect("small"));
                self.network.thaw(peer(id));
            }
            Fault::Cut(a, b) => self.network.cut(peer(a), peer(b)),
            Fault::Corrupt(id) => self.network.node_mut(peer(id)).corrupts_every = 7,
            Fault::Signer(ms) => {
                self.network.stop_signing();
                self.network.run_for(MS * u32::try_from(ms).expect("small"));
                self.network.resume_signing();
            }
            Fault::Origin(ms) => {
                self.network.publishing = false;
                self.network.run_for(MS * u32::try_from(ms).expect("small"));
                self.network.publishing = true;
            }
            Fault::Cdn(ms, kind) => {
                self.network.cdn_fault =
                    [CdnFault::NotFound, CdnFault::IgnoresRanges, CdnFault::Hangs]
                        [usize::from(kind)];
                self.network.run_for(MS * u32::try_from(ms).expect("small"));
                self.network.cdn_fault = CdnFault::None;
            }
            Fault::Move(id, above, standby, make_before_break) => {
                // Only to lower numbers, so that the planner's own rule holds: no circles.
                let edge = (above % id, standby % id);
                self.edges[usize::try_from(id - 1).expect("small")] = edge;
                self.plant(make_before_break);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_picture_survives_everything(
        edges in shape(),
        init in any::<bool>(),
        slow in any::<bool>(),
        tracks in 1_u32..3,
        faults in prop::collection::vec((fault(), 0_u64..3_000), 1..8),
    ) {
        let mut network = Network::new(Origin::new(90_000, init).with_tracks(tracks));
        network.run_for(Duration::from_millis(5_100));
        for id in 1..9 {
            network.add(id, if slow { 4_000_000 } else { 40_000_000 });
        }
        let mut forest = Forest { network, edges };
        forest.plant(false);
        forest.network.run_for(TARGET * 3);
        for (fault, pause) in &faults {
            forest.apply(fault);
            forest.network.run_for(MS * u32::try_from(*pause).expect("small"));
        }
        forest.network.run_for(TARGET * 8);
        let network = &forest.network;
        network.assert_gapless(3);
        for (id, node) in network.nodes.iter().filter(|(_, node)| node.alive) {
            let snapshot = node.engine.snapshot(network.now);
            prop_assert!(snapshot.ring_bytes <= 128 << 20, "{id}");
            // Faults of the CDN and pauses of the peer itself may stall it; others may not.
            let excused = faults.iter().any(|(fault, _)| {
                matches!(fault, Fault::Cdn(..) | Fault::Signer(..) | Fault::Origin(..)) || matches!(fault, Fault::Freeze(..))
            });
            prop_assert!(excused || snapshot.playout.stalls == 0, "{id} stalls: {snapshot:?}");
        }
    }
}
