//! What one peer that means harm can do to the others: how often their sources change because of it. The bounds
//! are those of `docs/planner.md`.
//!
//! Each plays for ten minutes against an audience that is at rest. A change is *broken* if the old source was taken
//! away before the new one flowed, else *moved*.

use std::collections::BTreeMap;

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const MBIT: u64 = 1_000_000;
const HONEST: u64 = 60;
const ADVERSARY: u64 = 1_000;
const SECONDS: u64 = 600;
/// What a small tree may be improved by in a second.
const PLANNED_PER_SECOND: u64 = 2;

/// How often honest peers had their source changed.
#[derive(Debug, Default)]
struct Harm {
    broken: u64,
    moved: u64,
    /// The most that one deed changed.
    most_at_once: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    First,
    Last,
}

struct Scene {
    world: World,
    harm: Harm,
}

impl Scene {
    /// Sixty honest peers at rest, with one slot each and some four: whatever the adversary claims is welcome.
    fn new(draft: PolicyDraft, claimed_bps: u64, comes: Comes) -> Self {
        let mut world = World::new(draft);
        if comes == Comes::First {
            world.join_quietly(ADVERSARY, Contributor, claimed_bps);
        }
        for id in 1..=HONEST {
            let upload = if id % 6 == 1 { 8 } else { 2 };
            world.join_quietly(id, Contributor, upload * MBIT);
            world.run(1);
        }
        if comes == Comes::Last {
            world.join_quietly(ADVERSARY, Contributor, claimed_bps);
        }
        world.run(120);
        let harm = Harm::default();
        Self { world, harm }
    }

    /// Does something, and counts what it changes for the others.
    fn play(&mut self, deed: impl FnOnce(&mut World)) {
        let before = self.world.edges();
        let entries = self.world.entries.len();
        deed(&mut self.world);
        let mut kept = BTreeMap::new();
        for entry in &self.world.entries[entries..] {
            for decided in &entry.edges {
                if let Some(edge) = decided.edge {
                    kept.entry(decided.peer).or_insert(edge.moving_from);
                }
            }
        }
        let mut changed = 0;
        for ((peer, track), now) in self.world.edges() {
            let was = before.get(&(peer, track)).copied().flatten();
            if peer.0 > HONEST || was.is_none() || was == now {
                continue;
            }
            changed += 1;
            match kept.get(&peer).copied().flatten() == was {
                true => self.harm.moved += 1,
                false => self.harm.broken += 1,
            }
        }
        self.harm.most_at_once = self.harm.most_at_once.max(changed);
    }

    fn parent(&self) -> Option<u64> {
        match self.world.row(ADVERSARY).source {
            Some(Source::Peer(parent)) => Some(parent.0),
            Some(Source::Cdn) | None => None,
        }
    }

    fn children(&self) -> Vec<PeerId> {
        self.world.row(ADVERSARY).children
    }

    fn quarantined(&self) -> usize {
        let suspects = self.world.engine.suspects();
        suspects.iter().filter(|it| it.quarantined).count()
    }
}

/// Whoever complains moves itself; the others at most take the slots that it leaves, make before break.
#[test]
fn who_reports_each_parent_as_bad_breaks_nothing() {
    for state in [LinkState::Corrupt, LinkState::Failed, LinkState::Late] {
        let mut scene = Scene::new(PolicyDraft::default(), 20 * MBIT, Comes::Last);
        let mut words = 0;
        for _ in 0..SECONDS {
            scene.play(|world| world.run(1));
            if let Some(parent) = scene.parent() {
                words += 1;
                scene.play(|world| world.say_link(ADVERSARY, parent, state));
            }
        }
        println!("{state:?}: {words} words, {:?}", scene.harm);
        let Harm {
            broken,
            moved,
            most_at_once,
        } = scene.harm;
        assert!(words > 3, "{state:?}: {words}");
        assert_eq!(broken, 0, "{state:?}");
        assert!(
            most_at_once <= PLANNED_PER_SECOND && moved <= words,
            "{state:?}: {moved}"
        );
        assert_eq!(scene.quarantined(), 0, "{state:?}");
    }
}

/// Who goes breaks its own children's edges and nobody else's, and who has just come has none.
#[test]
fn who_comes_and_goes_breaks_its_childrens_edges_alone() {
    for stays in [1, 5, 30] {
        let mut scene = Scene::new(PolicyDraft::default(), 20 * MBIT, Comes::First);
        let (mut times, mut children) = (0, 0);
        for second in 0..SECONDS {
            match second % (2 * stays) {
                0 => {
                    times += 1;
                    children += scene.children().len() as u64;
                    scene.play(|world| world.leave(ADVERSARY));
                }
                at if at == stays => {
                    scene.play(|world| world.join(ADVERSARY, Contributor, 20 * MBIT));
                }
                _ => {}
            }
            scene.play(|world| world.run(1));
        }
        println!(
            "{times} times {stays} s: {children} children, {:?}",
            scene.harm
        );
        assert!(children > 0, "it served somebody");
        assert!(scene.harm.broken <= children, "{:?}", scene.harm);
        assert!(scene.harm.moved <= PLANNED_PER_SECOND * SECONDS);
    }
}

/// Who claims upload that it does not have is relieved of its children one by one, make before break; where
/// uploads are learned it gets no more than it has shown to carry.
#[test]
fn who_claims_more_than_it_has_breaks_nothing() {
    for learns in [false, true] {
        let draft = PolicyDraft {
            learn_upload: Some(learns),
            ..PolicyDraft::default()
        };
        let mut scene = Scene::new(draft, 1_000 * MBIT, Comes::First);
        let mut most = scene.children().len();
        for _ in 0..SECONDS {
            scene.play(|world| world.run(1));
            // It has upload for one; all others say each second that it is late.
            let children = scene.children();
            most = most.max(children.len());
            for child in children.iter().skip(1) {
                scene.play(|world| world.say_link(child.0, ADVERSARY, LinkState::Late));
            }
        }
        println!("learned: {learns}, children {most}, {:?}", scene.harm);
        assert_eq!(scene.harm.broken, 0, "learned: {learns}");
        if learns {
            assert!(
                most <= 1 && scene.harm.moved == 0,
                "{most}: {:?}",
                scene.harm
            );
        } else {
            assert!(most > 1, "it is believed");
            assert!(scene.harm.moved <= PLANNED_PER_SECOND * SECONDS);
        }
    }
}
