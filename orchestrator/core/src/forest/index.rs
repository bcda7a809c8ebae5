//! A tree's index: which nodes can take children, how high they hang and how strong they are; and which
//! are leaves.
//!
//! Each node is in at most one list, which follows from its record: see [`Forest::class_of`]. Lists are by area
//! (the region and the group of NATs), depth and class; bits say which of them have members, so that the
//! best slot is found by looking at a few words whatever the audience's size.
//!
//! The bench is ordered by age, the oldest first; interior nodes by when they became open, the last first,
//! because that one is still in the cache.

use super::Forest;
use super::node::{Flags, Link, Node, NodeRef};

/// What a node in a list is good for: the lower, the sooner it gets a child.
pub(super) const INTERIOR: u8 = 0;
/// It has no children and all of its budget: from here on by its capacity, 1 to [`BENCHES`] and more.
pub(super) const BENCH: u8 = 1;
pub(super) const BENCHES: u8 = 9;
/// From here on they are strong: of use where depths depend on them.
pub(super) const STRONG: u8 = 6;
/// It has room only at the price of a reservation.
pub(super) const RESERVED: u8 = 10;
/// Its peer is a serial accuser.
pub(super) const DISTRUSTED: u8 = 11;
/// It has no children and can have none, for now or for good.
pub(super) const LEAF: u8 = 12;
/// Strong and without children, but somebody's successor with all that it has.
pub(super) const STRONG_HEIR: u8 = 13;
/// The classes of those that can take a child, the best first: who has children already, then the strong.
pub(super) const BY_PREFERENCE: [u8; 13] = [
    INTERIOR,
    9,
    8,
    7,
    6,
    5,
    4,
    3,
    2,
    1,
    RESERVED,
    STRONG_HEIR,
    DISTRUSTED,
];
const CLASSES: usize = 14;
/// In no list.
pub(super) const UNLISTED: u8 = 15;

const fn bits(from: u8, to: u8) -> u16 {
    (1 << (to + 1)) - (1 << from)
}

/// Those that can take a child.
pub(super) const OPEN: u16 = bits(INTERIOR, DISTRUSTED) | 1 << STRONG_HEIR;

/// Depths that a node can have; a policy allows at most 64.
pub(super) const DEPTHS: usize = 65;

/// The class of a bench node of this capacity: 1 to 7 by itself, 8 to 15, 16 and more.
pub(super) fn bench_of(capacity: u16) -> u8 {
    match capacity {
        0..=7 => BENCH + u8::try_from(capacity.max(1) - 1).unwrap_or(0),
        8..=15 => BENCH + 7,
        16.. => BENCHES,
    }
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    first: Link,
    last: Link,
}

const EMPTY: Ends = Ends {
    first: Link::NONE,
    last: Link::NONE,
};

/// The lists of one area.
#[derive(Debug, Clone)]
struct Area {
    /// By depth, then class.
    ends: Vec<[Ends; CLASSES]>,
    /// By depth: the classes that have members.
    classes: [u16; DEPTHS],
}

impl Area {
    fn new() -> Self {
        Self {
            ends: Vec::new(),
            classes: [0; DEPTHS],
        }
    }
}

/// The lists of one tree.
#[derive(Debug, Default)]
pub(super) struct Index {
    areas: Vec<Area>,
    /// By area: the depths at which somebody can take a child.
    open: Vec<u128>,
}

impl Index {
    pub(super) fn area_count(&self) -> u8 {
        u8::try_from(self.areas.len()).unwrap_or(u8::MAX)
    }

    fn make_area(&mut self, area: u8, depth: usize) {
        let needed = usize::from(area) + 1;
        if self.areas.len() < needed {
            self.areas.resize_with(needed, Area::new);
            self.open.resize(needed, 0);
        }
        let ends = &mut self.areas[usize::from(area)].ends;
        if ends.len() <= depth {
            ends.resize(depth + 1, [EMPTY; CLASSES]);
        }
    }

    /// The shallowest depth from `from` on at which somebody in the area can take a child.
    pub(super) fn shallowest_open(&self, area: u8, from: u32) -> Option<u32> {
        let depths = self.open.get(usize::from(area))? >> from;
        (depths != 0).then(|| from + depths.trailing_zeros())
    }

    /// The depths at which somebody can take a child: in this region, and in all others.
    pub(super) fn open_depths(&self, region: u8) -> (u128, u128) {
        let mut depths = (0, 0);
        for (area, open) in (0_u8..).zip(&self.open) {
            if area & !1 == region {
                depths.0 |= open;
            } else {
                depths.1 |= open;
            }
        }
        depths
    }

    pub(super) fn classes(&self, area: u8, depth: u32) -> u16 {
        let area = self.areas.get(usize::from(area));
        area.map_or(0, |area| area.classes[depth as usize])
    }

    pub(super) fn first(&self, area: u8, depth: u32, class: u8) -> Option<NodeRef> {
        let ends = self
            .areas
            .get(usize::from(area))?
            .ends
            .get(depth as usize)?;
        ends[usize::from(class)].first.get()
    }

    pub(super) fn bytes(&self) -> usize {
        let lists = self.areas.iter().map(|area| area.ends.capacity());
        lists.sum::<usize>() * size_of::<[Ends; CLASSES]>()
            + self.areas.capacity() * (size_of::<Area>() + size_of::<u128>())
    }

    fn note(&mut self, area: u8, depth: usize, class: u8, has_members: bool) {
        let classes = &mut self.areas[usize::from(area)].classes[depth];
        if has_members {
            *classes |= 1 << class;
        } else {
            *classes &= !(1 << class);
        }
        let open = *classes & OPEN != 0;
        let depths = &mut self.open[usize::from(area)];
        if open {
            *depths |= 1 << depth;
        } else {
            *depths &= !(1 << depth);
        }
    }

    fn insert(&mut self, nodes: &mut [Node], node: NodeRef, class: u8) {
        let record = &nodes[node.index()];
        let (area, depth) = (record.area(), usize::from(record.depth));
        self.make_area(area, depth);
        let ends = &mut self.areas[usize::from(area)].ends[depth][usize::from(class)];
        let was_empty = ends.first == Link::NONE;
        let after = match class {
            INTERIOR => None,
            BENCH..=RESERVED | STRONG_HEIR => older(nodes, ends.last, record.born),
            _ => ends.last.get(),
        };
        let before = match after {
            None => core::mem::replace(&mut ends.first, Link::to(node)),
            Some(after) => {
                core::mem::replace(&mut nodes[after.index()].next_listed, Link::to(node))
            }
        };
        match before.get() {
            None => ends.last = Link::to(node),
            Some(before) => nodes[before.index()].previous_listed = Link::to(node),
        }
        let record = &mut nodes[node.index()];
        record.previous_listed = after.into();
        record.next_listed = before;
        if was_empty {
            self.note(area, depth, class, true);
        }
    }

    fn remove(&mut self, nodes: &mut [Node], node: NodeRef, class: u8) {
        let record = &mut nodes[node.index()];
        let (area, depth) = (record.area(), usize::from(record.depth));
        let before = core::mem::replace(&mut record.previous_listed, Link::NONE);
        let after = core::mem::replace(&mut record.next_listed, Link::NONE);
        let ends = &mut self.areas[usize::from(area)].ends[depth][usize::from(class)];
        match before.get() {
            None => ends.first = after,
            Some(before) => nodes[before.index()].next_listed = after,
        }
        match after.get() {
            None => ends.last = before,
            Some(after) => nodes[after.index()].previous_listed = before,
        }
        if ends.first == Link::NONE {
            self.note(area, depth, class, false);
        }
    }
}

/// The last of a list that is not younger; not looked for far, so that a list is ordered but for a few.
fn older(nodes: &[Node], last: Link, born: u32) -> Option<NodeRef> {
    const FAR: usize = 4;
    let mut at = last.get();
    for _ in 0..FAR {
        match at {
            Some(node) if nodes[node.index()].born > born => {
                at = nodes[node.index()].previous_listed.get();
            }
            Some(_) | None => return at,
        }
    }
    // Much older than those who came last: it goes before all of them.
    None
}

impl Forest {
    /// The list that the node belongs in by its record.
    pub(super) fn class_of(&self, node: &Node) -> u8 {
        if node.depth == 0 {
            return UNLISTED;
        }
        let carried = node.carried();
        if node.serves() && node.capacity > 0 {
            if node.free() > 0 {
                return match carried {
                    _ if node.flags.has(Flags::DISTRUSTED) => DISTRUSTED,
                    0 if node.pledged == 0 => bench_of(node.capacity),
                    _ => INTERIOR,
                };
            }
            if self.has_room_at_a_price(node) {
                return match carried {
                    _ if node.flags.has(Flags::DISTRUSTED) => DISTRUSTED,
                    0 if bench_of(node.capacity) >= STRONG => STRONG_HEIR,
                    _ => RESERVED,
                };
            }
        }
        if node.children == 0 { LEAF } else { UNLISTED }
    }

    /// Puts the node into the list that its record demands.
    pub(super) fn reindex(&mut self, node: NodeRef) {
        let record = &self.nodes[node.index()];
        let class = self.class_of(record);
        let old = record.listed & 15;
        if class == old {
            return;
        }
        let tree = &mut self.trees[usize::from(record.tree)];
        let index = &mut tree
            .as_mut()
            .expect("invariant: the node's tree is there")
            .index;
        if old != UNLISTED {
            index.remove(&mut self.nodes, node, old);
        }
        if class != UNLISTED {
            index.insert(&mut self.nodes, node, class);
        }
        let listed = &mut self.nodes[node.index()].listed;
        *listed = *listed & 0xf0 | class;
    }

    /// Takes the node out of its list before its depth or its area changes.
    pub(super) fn unlist(&mut self, node: NodeRef) {
        let record = &mut self.nodes[node.index()];
        let old = record.listed & 15;
        record.listed |= UNLISTED;
        if old != UNLISTED {
            let tree = &mut self.trees[usize::from(record.tree)];
            let index = &mut tree
                .as_mut()
                .expect("invariant: the node's tree is there")
                .index;
            index.remove(&mut self.nodes, node, old);
        }
    }

    /// Walks through all lists of all trees: what is in a list that its record does not demand, or missing.
    pub(crate) fn wrongly_listed(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let mut listed = 0;
        for tree in self.trees() {
            for (area, lists) in (0_u8..).zip(&tree.index.areas) {
                for (depth, ends) in (0_u8..).zip(&lists.ends) {
                    for (class, ends) in (0_u8..).zip(ends) {
                        let mut last = Link::NONE;
                        let mut at = ends.first;
                        while let Some(node) = at.get() {
                            let record = self.node(node);
                            let place = (record.area(), record.depth, record.listed & 15);
                            if place != (area, depth, class) || record.previous_listed != last {
                                findings.push(format!("{node:?} is not where it is listed"));
                                return findings;
                            }
                            listed += 1;
                            last = at;
                            at = record.next_listed;
                        }
                        let noted = lists.classes[usize::from(depth)] & 1 << class != 0;
                        if ends.last != last || noted != (last != Link::NONE) {
                            findings.push(format!("the list {area}.{depth}.{class} is broken"));
                        }
                    }
                }
            }
        }
        let alive = self
            .nodes
            .iter()
            .filter(|node| node.flags.has(Flags::ALIVE));
        for node in alive {
            let class = self.class_of(node);
            if class != node.listed & 15 {
                let is = node.listed & 15;
                findings.push(format!("{:?} is of class {class}, not {is}", node.peer));
            }
            listed -= i64::from(class != UNLISTED);
        }
        if listed != 0 {
            findings.push(format!("{listed} nodes too many are listed"));
        }
        findings
    }
}
