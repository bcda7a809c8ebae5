//! What goes wrong, and when, from the seed.
//!
//! Each seed has a temper of its own: some kinds of faults, often or seldom. A run in which everything fails
//! all the time proves little; many that are each bad in their own way prove more.

use std::time::Duration;

use espalier_shards::NodeId;

use crate::context::Event;
use crate::dice::Dice;
use crate::disk::DiskPace;
use crate::sky::Weather;

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A node dies and is started again after a while.
    Crash(NodeId, Duration),
    /// All nodes die at once.
    CrashAll(Duration),
    /// These lines are down, each in one direction, for a while.
    Cut(Vec<(NodeId, NodeId)>, Duration),
    /// All lines are up.
    Mend,
    /// A disk writes nothing for a while.
    Stall(NodeId, Duration),
    /// Nodes believe that a connection was refused, which it was not.
    Suspect(Suspicion),
    /// Everything on the network takes long for a while.
    Storm(Duration),
    /// The network is as bad as usual.
    Lull,
    /// Some connections break.
    Break(u64),
    /// A leader hands over.
    Transfer(NodeId),
    /// A node writes a snapshot.
    Snapshot(NodeId),
    /// Everything works from now on.
    Heal,
}

/// What is believed of whom.
#[derive(Debug, Clone)]
pub(crate) struct Suspicion {
    /// Nodes of a thousand that believe it.
    pub(crate) share: u64,
    /// Of whom; `None`: of the leader.
    pub(crate) whom: Option<NodeId>,
    /// When all lines to it go down, and for how long.
    pub(crate) cut: Option<(Duration, Duration)>,
}

impl Fault {
    /// How long it lasts, and what ends it.
    fn end(&self) -> Option<(Duration, Fault)> {
        if let Self::Cut(_, lasts) = self {
            Some((*lasts, Self::Mend))
        } else if let Self::Storm(lasts) = self {
            Some((*lasts, Self::Lull))
        } else {
            None
        }
    }
}

/// What a seed's world is like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    pub(crate) weather: Weather,
    pub(crate) disk: DiskPace,
    pub(crate) peers: usize,
    pub(crate) clients: u32,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) kept_entries: u64,
    /// How much faster or slower than time clocks may be, in a million.
    pub(crate) skew: u64,
    /// Many appends are on their way to one node, as in production; otherwise each waits for the one before,
    /// and they are lost and doubled one by one.
    pub(crate) pipelined: bool,
    tempers: [u64; KINDS],
    pause: (Duration, Duration),
}

const KINDS: usize = 9;

impl Plan {
    pub(crate) fn draw(seed: &Dice, nodes: Option<u64>) -> Self {
        let mut dice = seed.stream("plan", 0);
        let wanted = if dice.chance(250) { 5 } else { 3 };
        let mut tempers = [0; KINDS];
        for temper in &mut tempers {
            *temper = if dice.chance(550) {
                dice.range(1, 10)
            } else {
                0
            };
        }
        if tempers.iter().all(|temper| *temper == 0) {
            tempers[0] = 1;
        }
        let busy = dice.range(100, 900);
        Self {
            nodes: nodes.unwrap_or(wanted),
            trouble: dice.millis(6_000, 12_000),
            weather: Weather {
                fastest: Duration::from_micros(100),
                slowest: dice.millis(1, 12),
                late: dice.below(40),
                lost: if dice.chance(500) { dice.below(60) } else { 0 },
                doubled: if dice.chance(500) { dice.below(100) } else { 0 },
                fatal_votes: if dice.chance(400) {
                    dice.range(200, 800)
                } else {
                    0
                },
            },
            disk: DiskPace {
                fastest: Duration::from_micros(200),
                slowest: dice.millis(1, 25),
            },
            peers: usize::try_from(dice.range(4, 18)).unwrap_or(8),
            clients: u32::try_from(dice.range(1, 4)).unwrap_or(2),
            snapshot_log_bytes: dice.range(2_000, 60_000),
            kept_entries: dice.range(2, 200),
            skew: if dice.chance(500) {
                dice.below(100_000)
            } else {
                0
            },
            pipelined: dice.chance(650),
            tempers,
            pause: (
                Duration::from_millis(busy / 4),
                Duration::from_millis(busy * 2),
            ),
        }
    }

    pub(crate) fn all_nodes(&self) -> Vec<NodeId> {
        (1..=self.nodes).collect()
    }

    /// All faults of a run that begins to go wrong at `from`.
    pub(crate) fn faults(&self, seed: &Dice, from: Duration) -> Vec<(Duration, Event)> {
        let mut dice = seed.stream("faults", 0);
        let end = from + self.trouble;
        let mut faults = Vec::new();
        let mut at = from;
        loop {
            at += dice.time(self.pause.0, self.pause.1);
            if at >= end {
                break;
            }
            let fault = self.fault(&mut dice);
            let lasts = fault.end();
            faults.push((at, Event::Fault(fault)));
            if let Some((lasts, over)) = lasts {
                faults.push((at + lasts, Event::Fault(over)));
            }
        }
        faults.push((end, Event::Fault(Fault::Heal)));
        faults
    }

    fn fault(&self, dice: &mut Dice) -> Fault {
        let total: u64 = self.tempers.iter().sum();
        let mut lot = dice.below(total);
        let mut kind = 0;
        for (place, temper) in self.tempers.iter().enumerate() {
            if lot < *temper {
                kind = place;
                break;
            }
            lot -= temper;
        }
        let node = dice.range(1, self.nodes);
        match kind {
            0 => Fault::Crash(node, down(dice)),
            1 => Fault::CrashAll(down(dice)),
            2 => {
                let lasts = dice.millis(50, 4_000);
                Fault::Cut(self.lines(dice), lasts)
            }
            3 => Fault::Stall(node, dice.millis(20, 1_500)),
            4 => Fault::Suspect(Suspicion {
                share: dice.range(400, 1_200),
                whom: dice.chance(300).then_some(node),
                cut: dice
                    .chance(600)
                    .then(|| (dice.millis(0, 40), dice.millis(100, 1_500))),
            }),
            5 => Fault::Storm(dice.millis(100, 3_000)),
            6 => Fault::Break(dice.range(1, 12)),
            7 => Fault::Transfer(node),
            _ => Fault::Snapshot(node),
        }
    }

    /// Lines that go down together: a node's, one direction of one, or those between two parts.
    fn lines(&self, dice: &mut Dice) -> Vec<(NodeId, NodeId)> {
        let all = self.all_nodes();
        let node = dice.range(1, self.nodes);
        let kind = dice.below(4);
        let side: u64 = dice.range(1, (1 << self.nodes) - 2);
        let pairs = all
            .iter()
            .flat_map(|from| all.iter().map(move |to| (*from, *to)));
        let down = |(from, to): &(NodeId, NodeId)| match kind {
            0 => *from == node || *to == node,
            1 => *from == node,
            2 => *to == node,
            _ => (side >> (from - 1)) & 1 != (side >> (to - 1)) & 1,
        };
        pairs
            .filter(|pair| pair.0 != pair.1 && down(pair))
            .collect()
    }
}

/// How long a node is down: mostly shortly, so that it is back before the others have settled.
fn down(dice: &mut Dice) -> Duration {
    match dice.below(3) {
        0 => dice.millis(1, 60),
        1 => dice.millis(50, 800),
        _ => dice.millis(500, 4_000),
    }
}
