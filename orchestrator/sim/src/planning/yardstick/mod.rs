//! What the planner is compared with: three published ways to build a tree, each with the whole audience in
//! view, which no distributed protocol has.
//!
//! - *Random*: any peer with a free slot.
//! - *Minimum depth*: the shallowest free slot (Sripanidkulchai et al., SIGCOMM 2004).
//! - *ROST*: minimum depth, and a child takes its parent's place once its uplink times its age is greater
//!   (Tan and Jarvis, 2007).
//!
//! As with the planner, who has not been fed yet serves nobody, and an orphan keeps what is below it. There
//! are no standbys.

mod overlay;

use std::time::Duration;

use clap::ValueEnum;
use espalier_orchestrator_core::TrackIndex;
use espalier_orchestrator_core::planner::{EdgeChange, PeerSlot, SourceSlot, TreeId, Work};

use crate::dice::Dice;

const TREE: TreeId = TreeId {
    track: TrackIndex(0),
    stripe: 0,
};
/// Random tries before the first that is open is taken.
const TRIES: u32 = 32;
/// How often ROST looks at everyone.
const ROUND: Duration = Duration::from_secs(30);

/// How a place is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Any free slot.
    Random,
    /// The shallowest free slot.
    MinimumDepth,
    /// The same, and the strong and old rise.
    Rost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Nowhere,
    Cdn,
    Under(u32),
}

#[derive(Debug, Clone, Default)]
struct Node {
    here: bool,
    warm: bool,
    place: Place,
    depth: u32,
    capacity: u32,
    born: Duration,
    children: Vec<u32>,
    /// Where it stands in its level's list of those with a free slot.
    open_at: Option<usize>,
}

/// A tree built by a rule.
#[derive(Debug)]
pub(crate) struct Yardstick {
    rule: Rule,
    cost_bps: u64,
    most: u32,
    target: u32,
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// By depth, those with a free slot.
    open: Vec<Vec<u32>>,
    levels: Vec<u32>,
    changes: Vec<EdgeChange>,
    dice: Dice,
    work: Work,
    /// Who is looked at next, and when the round began.
    cursor: u32,
    turned: Duration,
}

impl Yardstick {
    pub(crate) fn new(rule: Rule, cost_bps: u64, most: u32, target: u32, seed: u64) -> Self {
        Self {
            rule,
            cost_bps,
            most,
            target,
            nodes: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            levels: Vec::new(),
            changes: Vec::new(),
            dice: Dice::new(seed),
            work: Work::default(),
            cursor: 0,
            turned: Duration::ZERO,
        }
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn is_open(&self, at: u32) -> bool {
        let node = self.node(at);
        let free = node.children.len() < node.capacity as usize;
        node.here && node.warm && node.place != Place::Nowhere && free
    }

    /// Puts the node into its level's list, or takes it out.
    fn reindex(&mut self, at: u32) {
        let depth = self.node(at).depth as usize;
        match (self.node(at).open_at, self.is_open(at)) {
            (None, true) => {
                self.open
                    .resize_with(self.open.len().max(depth + 1), Vec::new);
                self.open[depth].push(at);
                self.node_mut(at).open_at = Some(self.open[depth].len() - 1);
            }
            (Some(index), false) => {
                self.open[depth].swap_remove(index);
                if let Some(moved) = self.open[depth].get(index).copied() {
                    self.node_mut(moved).open_at = Some(index);
                }
                self.node_mut(at).open_at = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn find(&mut self, child: u32) -> Option<u32> {
        match self.rule {
            Rule::Random => self.find_any(child),
            Rule::MinimumDepth | Rule::Rost => self.find_shallowest(child),
        }
    }

    fn find_any(&mut self, child: u32) -> Option<u32> {
        let all: u64 = self.open.iter().map(|level| level.len() as u64).sum();
        for _ in 0..TRIES.min(u32::try_from(all).unwrap_or(TRIES)) {
            let mut index = usize::try_from(self.dice.below(all)).unwrap_or(0);
            let level = self.open.iter().find(|level| {
                let found = index < level.len();
                index -= if found { 0 } else { level.len() };
                found
            });
            let found = level.map(|level| level[index]);
            if let Some(parent) = found.filter(|parent| !self.is_within(*parent, child)) {
                return Some(parent);
            }
        }
        self.find_shallowest(child)
    }

    fn find_shallowest(&self, child: u32) -> Option<u32> {
        let mut open = self.open.iter().flatten().copied();
        open.find(|parent| !self.is_within(*parent, child))
    }

    fn is_within(&self, at: u32, top: u32) -> bool {
        if self.node(top).children.is_empty() {
            return at == top;
        }
        let up = |at: &u32| match self.node(*at).place {
            Place::Under(parent) => Some(parent),
            Place::Cdn | Place::Nowhere => None,
        };
        core::iter::successors(Some(at), up).any(|at| at == top)
    }

    fn roots(&self) -> u32 {
        self.levels.get(1).copied().unwrap_or(0)
    }

    /// Places one that has no place, with all that is below it.
    fn place(&mut self, at: u32, planned: bool) {
        let may_be_root = self.node(at).capacity > 0 && self.roots() < self.target;
        let parent = if may_be_root { None } else { self.find(at) };
        self.attach(at, parent.map_or(Place::Cdn, Place::Under), planned);
    }

    fn attach(&mut self, at: u32, place: Place, planned: bool) {
        let depth = match place {
            Place::Under(parent) => {
                self.node_mut(parent).children.push(at);
                self.reindex(parent);
                self.node(parent).depth + 1
            }
            Place::Cdn | Place::Nowhere => 1,
        };
        self.node_mut(at).place = place;
        self.relabel(at, depth);
        self.work.edges += 1;
        self.say(at, planned);
    }

    fn detach(&mut self, at: u32) {
        if let Place::Under(parent) = core::mem::take(&mut self.node_mut(at).place) {
            self.node_mut(parent).children.retain(|child| *child != at);
            self.reindex(parent);
        }
    }

    fn relabel(&mut self, top: u32, depth: u32) {
        let mut stack = vec![(top, depth)];
        while let Some((at, depth)) = stack.pop() {
            let old = self.node(at).depth;
            if old != depth {
                self.work.relabelled += 1;
                self.close(at);
                self.levels
                    .resize(self.levels.len().max(depth as usize + 1), 0);
                self.levels[depth as usize] += 1;
                if old > 0 {
                    self.levels[old as usize] -= 1;
                }
                self.node_mut(at).depth = depth;
                let children = &self.nodes[at as usize].children;
                stack.extend(children.iter().map(|child| (*child, depth + 1)));
            }
            self.reindex(at);
        }
    }

    /// Takes the node out of its level's list.
    fn close(&mut self, at: u32) {
        let here = core::mem::replace(&mut self.node_mut(at).here, false);
        self.reindex(at);
        self.node_mut(at).here = here;
    }

    fn say(&mut self, at: u32, planned: bool) {
        let source = match self.node(at).place {
            Place::Nowhere => None,
            Place::Cdn => Some(SourceSlot::Cdn),
            Place::Under(parent) => Some(SourceSlot::Peer(PeerSlot(parent))),
        };
        self.changes.push(EdgeChange {
            peer: PeerSlot(at),
            tree: TREE,
            source,
            standby: None,
            planned,
        });
    }

    /// Moves a root that nobody needs at the CDN under another.
    fn gather(&mut self, at: u32) {
        if self.node(at).place != Place::Cdn || self.roots() <= self.target {
            return;
        }
        if let Some(parent) = self.find(at) {
            self.attach(at, Place::Under(parent), true);
        }
    }

    /// Exchanges the node with its parent if it is the stronger and older by their product.
    fn rise(&mut self, at: u32, now: Duration) {
        let node = self.node(at);
        let Place::Under(parent) = node.place else {
            return;
        };
        let worth = |node: &Node| u128::from(node.capacity) * (now - node.born).as_millis();
        let above = self.node(parent);
        let swaps = node.warm && worth(node) > worth(above) && node.capacity >= above.capacity;
        if !swaps || above.children.len() > node.capacity as usize {
            return;
        }
        let place = above.place;
        let siblings = above.children.clone();
        let below = node.children.clone();
        self.detach(parent);
        for child in siblings.iter().chain(&below) {
            self.detach(*child);
        }
        self.attach(at, place, true);
        self.attach(parent, Place::Under(at), true);
        for child in siblings.into_iter().filter(|child| *child != at) {
            self.attach(child, Place::Under(at), true);
        }
        for child in below {
            let open = [parent, at]
                .into_iter()
                .find(|parent| self.is_open(*parent));
            let place = open.or_else(|| self.find(child));
            self.attach(child, place.map_or(Place::Cdn, Place::Under), true);
        }
    }
}
