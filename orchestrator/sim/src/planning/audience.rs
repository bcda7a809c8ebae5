//! The viewers: who they are, how many they are, and what they could carry.
//!
//! One record per slot of the planner's, in one cache line. What the bounds need (how many have how many
//! slots) is counted as they come and go.

use espalier_orchestrator_core::planner::{Newcomer, PeerSlot};
use espalier_orchestrator_core::{
    DeviceClass, Locality, NatClass, PeerId, PeerProfile, PeerRole, TrackName,
};

use super::distribution::{Shape, unit};
use super::network::{Geography, Spot};
use super::scenario::{Device, Group, Scenario};
use crate::dice::{Dice, mix};

/// Slots of one peer are counted up to this.
pub(crate) const MOST_SLOTS: usize = 512;
/// A time that no run reaches.
pub(crate) const NEVER: u32 = u32::MAX;

/// The place of a peer in a tree, as the network has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// [`NOWHERE`], [`CDN`] or a slot.
    pub(crate) source: u32,
    /// Tells the latest change of the source from earlier ones.
    pub(crate) token: u32,
    /// Data flow from another peer.
    pub(crate) fed: bool,
}

pub(crate) const NOWHERE: u32 = u32::MAX;
pub(crate) const CDN: u32 = u32::MAX - 1;

impl Default for Place {
    fn default() -> Self {
        Self {
            source: NOWHERE,
            token: 0,
            fed: false,
        }
    }
}

/// One viewer or relay, as it really is: one line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(crate) struct Viewer {
    /// Milliseconds of the run.
    pub(crate) born: u32,
    /// When it vanishes; the planner hears of it later.
    pub(crate) dies: u32,
    /// Wire kbit/s that it really can upload for others.
    pub(crate) uplink_kbps: u32,
    /// Wire kbit/s that the planner believes.
    pub(crate) believed_kbps: u32,
    /// Tells this one from others who had the slot before.
    pub(crate) turn: u32,
    pub(crate) spot: Spot,
    pub(crate) children: u16,
    pub(crate) group: u8,
    pub(crate) track: u8,
    /// For how many seconds it has been seen full.
    pub(crate) full_for: u8,
    pub(crate) relay: bool,
    pub(crate) here: bool,
    /// Its place in the first tree: with one tree, all that an event needs is in one line.
    first: Place,
}

impl Viewer {
    pub(crate) fn lives(&self, now: u32) -> bool {
        self.here && now < self.dies
    }
}

/// What is drawn for one who comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    pub(crate) group: u8,
    pub(crate) relay: bool,
    /// How long it stays, seconds.
    pub(crate) life: f64,
}

/// Everyone who is there.
#[derive(Debug)]
pub(crate) struct Audience {
    groups: Vec<Group>,
    /// Of those who come, up to and with each group.
    arrivals: Vec<f64>,
    tracks: Vec<TrackName>,
    /// Kbit/s of one child of a stripe of each track.
    pub(crate) costs_kbps: Vec<u32>,
    track_shares: Vec<f64>,
    most: (u32, u32),
    error: f64,
    geography: Geography,
    viewers: Vec<Viewer>,
    /// The places in the other trees.
    others: Vec<Place>,
    trees: usize,
    ids: u64,
    seed: u64,
    dice: Dice,
    /// For each track, how many of its viewers have how many slots in it; a slot is a stripe's.
    pub(crate) capacities: Vec<Vec<u32>>,
    /// For each NAT class (open, port-restricted, symmetric, without UDP): viewers and slots.
    pub(crate) by_nat: [(u32, u64); 4],
    pub(crate) viewers_here: u32,
}

impl Audience {
    pub(crate) fn new(scenario: &Scenario, geography: Geography, dice: &Dice) -> Self {
        let rate = |group: &Group| group.share / group.session.shape.mean();
        let rates = || scenario.groups.iter().map(rate);
        let all: f64 = rates().sum();
        let mut sum = 0.0;
        let arrivals = rates().map(|rate| {
            sum += rate / all;
            sum
        });
        let arrivals = arrivals.collect();
        let mut sum = 0.0;
        let shares = scenario.channel.tracks.iter().map(|track| {
            sum += track.share;
            sum
        });
        let track_shares: Vec<f64> = shares.collect();
        let channel = &scenario.channel;
        let costs = channel.tracks.iter().map(|track| {
            let rate = track.rate_bps.div_ceil(u64::from(channel.stripes));
            let bps = rate * u64::from(channel.overhead_permille) / 1000;
            u32::try_from(bps / 1000).unwrap_or(u32::MAX).max(1)
        });
        let costs_kbps: Vec<u32> = costs.collect();
        let relay_children = channel.max_relay_children.unwrap_or(channel.max_children);
        let tracks = channel
            .tracks
            .iter()
            .filter_map(|track| track.name.parse().ok());
        Self {
            arrivals,
            tracks: tracks.collect(),
            capacities: vec![vec![0; MOST_SLOTS + 1]; costs_kbps.len()],
            costs_kbps,
            track_shares,
            most: (
                u32::from(channel.stripes) * channel.max_children,
                u32::from(channel.stripes) * relay_children,
            ),
            error: scenario.wrong_capacity.map_or(0.0, |wrong| wrong.error),
            groups: scenario.groups.clone(),
            geography,
            viewers: Vec::new(),
            others: Vec::new(),
            trees: scenario.channel.tracks.len() * usize::from(scenario.channel.stripes),
            ids: 0,
            seed: dice.stream("ids", 0).next(),
            dice: dice.stream("audience", 0),
            by_nat: [(0, 0); 4],
            viewers_here: 0,
        }
    }

    pub(crate) fn geography(&self) -> &Geography {
        &self.geography
    }

    pub(crate) fn viewer(&self, slot: PeerSlot) -> &Viewer {
        &self.viewers[slot.0 as usize]
    }

    pub(crate) fn viewer_mut(&mut self, slot: PeerSlot) -> &mut Viewer {
        &mut self.viewers[slot.0 as usize]
    }

    pub(crate) fn place(&self, slot: PeerSlot, tree: u8) -> &Place {
        if tree == 0 {
            return &self.viewer(slot).first;
        }
        &self.others[slot.0 as usize * (self.trees - 1) + usize::from(tree) - 1]
    }

    pub(crate) fn place_mut(&mut self, slot: PeerSlot, tree: u8) -> &mut Place {
        if tree == 0 {
            return &mut self.viewer_mut(slot).first;
        }
        &mut self.others[slot.0 as usize * (self.trees - 1) + usize::from(tree) - 1]
    }

    /// Walks through everyone who is there and has not vanished.
    pub(crate) fn living(&self, now: u32) -> impl Iterator<Item = (PeerSlot, &Viewer)> {
        let all = (0..).map(PeerSlot).zip(&self.viewers);
        all.filter(move |(_, viewer)| viewer.lives(now))
    }

    /// How many slots there are for the planner's numbers.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.viewers.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn session_of(&self, group: u8) -> &Shape {
        &self.groups[usize::from(group)].session.shape
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn track_name(&self, track: u8) -> TrackName {
        self.tracks[usize::from(track)].clone()
    }

    /// How many come in a second, for each viewer of an audience that stays as large as it is.
    pub(crate) fn turnover(&self) -> f64 {
        let rate = |group: &Group| group.share / group.session.shape.mean();
        self.groups.iter().map(rate).sum()
    }

    /// Draws one who comes.
    pub(crate) fn draw(&mut self) -> Drawn {
        let at = unit(&mut self.dice);
        let group = self.arrivals.partition_point(|sum| *sum < at);
        let group = group.min(self.groups.len() - 1);
        Drawn {
            group: u8::try_from(group).unwrap_or(0),
            relay: false,
            life: self.groups[group].session.shape.draw(&mut self.dice),
        }
    }

    /// Draws a track to begin with, or to change to.
    pub(crate) fn draw_track(&mut self) -> u8 {
        let at = unit(&mut self.dice);
        let track = self.track_shares.partition_point(|sum| *sum < at);
        u8::try_from(track.min(self.track_shares.len() - 1)).unwrap_or(0)
    }

    pub(crate) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Makes the person and what it says of itself.
    pub(crate) fn prepare(&mut self, drawn: Drawn, now: u32) -> (Viewer, Newcomer) {
        let group = &self.groups[usize::from(drawn.group)];
        let dice = &mut self.dice;
        let spot = self.geography.draw(dice);
        let consumes = unit(dice) < group.consumers;
        let uplink = if consumes {
            0.0
        } else {
            group.upload.shape.draw(dice) * group.usable / 1000.0
        };
        let most = if drawn.relay {
            self.most.1
        } else {
            self.most.0
        };
        // Where relays may have more children than viewers, the policy's limit is theirs.
        let limit = if self.most.0 < self.most.1 {
            most * self.costs_kbps[0]
        } else {
            u32::MAX
        };
        let uplink_kbps = kbps(uplink).min(limit);
        let believed_kbps = if self.error > 0.0 {
            let error = 1.0 + self.error * (2.0 * unit(dice) - 1.0);
            kbps(f64::from(uplink_kbps) * error)
        } else {
            uplink_kbps
        };
        let profile = PeerProfile {
            device: device(group.device),
            metered: group.metered > 0.0 && unit(dice) < group.metered,
            on_battery: group.on_battery > 0.0 && unit(dice) < group.on_battery,
            nat: spot.nat,
            locality: Locality {
                lan: 0,
                site: 0,
                asn: u32::from(spot.provider) + 1,
                region: spot.region + 1,
            },
        };
        let track = if self.tracks.len() > 1 {
            self.draw_track()
        } else {
            0
        };
        let many = self.tracks.len() > 1;
        let wanted = many.then(|| self.track_name(track));
        let role = match (drawn.relay, consumes) {
            (true, _) => PeerRole::Relay,
            (false, true) => PeerRole::Consumer,
            (false, false) => PeerRole::Contributor,
        };
        self.ids += 1;
        let viewer = Viewer {
            born: now,
            dies: ends(now, drawn.life),
            uplink_kbps,
            believed_kbps,
            turn: u32::try_from(self.ids & u64::from(u32::MAX)).unwrap_or(0),
            spot,
            children: 0,
            group: drawn.group,
            track,
            full_for: 0,
            relay: drawn.relay,
            here: true,
            first: Place::default(),
        };
        let newcomer = Newcomer {
            id: PeerId(mix(self.seed.wrapping_add(self.ids))),
            role,
            upload_bps: u64::from(believed_kbps) * 1000,
            profile,
            wanted: wanted.into_iter().collect(),
        };
        (viewer, newcomer)
    }

    /// Puts the person into its slot.
    pub(crate) fn seat(&mut self, slot: PeerSlot, viewer: Viewer) {
        let index = slot.0 as usize;
        if index >= self.viewers.len() {
            self.viewers.resize(index + 1, Viewer::default());
            let others = (index + 1) * (self.trees - 1);
            self.others.resize(others, Place::default());
        }
        let first = self.viewers[index].first;
        self.viewers[index] = Viewer { first, ..viewer };
        self.count(&viewer, true);
    }

    /// Empties the slot.
    pub(crate) fn unseat(&mut self, slot: PeerSlot) {
        let viewer = *self.viewer(slot);
        self.count(&viewer, false);
        let viewer = self.viewer_mut(slot);
        (viewer.here, viewer.children) = (false, 0);
    }

    /// The viewer changes its track.
    pub(crate) fn retune(&mut self, slot: PeerSlot, track: u8) {
        let before = *self.viewer(slot);
        self.count(&before, false);
        self.viewer_mut(slot).track = track;
        let after = *self.viewer(slot);
        self.count(&after, true);
    }

    /// What the peer's uplink carries, what is not offered included.
    pub(crate) fn real_uplink_kbps(&self, slot: PeerSlot) -> f64 {
        let viewer = self.viewer(slot);
        let usable = self.groups[usize::from(viewer.group)].usable;
        f64::from(viewer.uplink_kbps.max(1)) / usable.max(0.01)
    }

    /// The children of its own track that the viewer can really have.
    pub(crate) fn capacity(&self, viewer: &Viewer) -> u32 {
        let most = if viewer.relay {
            self.most.1
        } else {
            self.most.0
        };
        (viewer.uplink_kbps / self.costs_kbps[usize::from(viewer.track)]).min(most)
    }

    /// The children that the planner believes it can have.
    pub(crate) fn believed_capacity(&self, viewer: &Viewer) -> u32 {
        let most = if viewer.relay {
            self.most.1
        } else {
            self.most.0
        };
        (viewer.believed_kbps / self.costs_kbps[usize::from(viewer.track)]).min(most)
    }

    fn count(&mut self, viewer: &Viewer, comes: bool) {
        let capacity = self.capacity(viewer);
        let step = |count: u32| if comes { count + 1 } else { count - 1 };
        let counts = &mut self.capacities[usize::from(viewer.track)];
        let at = (capacity as usize).min(MOST_SLOTS);
        counts[at] = step(counts[at]);
        let nat = &mut self.by_nat[nat_index(viewer.spot.nat)];
        nat.0 = step(nat.0);
        nat.1 = if comes {
            nat.1 + u64::from(capacity)
        } else {
            nat.1 - u64::from(capacity)
        };
        self.viewers_here = step(self.viewers_here);
    }
}

pub(crate) fn nat_index(nat: NatClass) -> usize {
    match nat {
        NatClass::Open | NatClass::Unknown => 0,
        NatClass::PortRestricted => 1,
        NatClass::Symmetric => 2,
        NatClass::NoUdp => 3,
    }
}

fn device(device: Device) -> DeviceClass {
    match device {
        Device::Unknown => DeviceClass::Unknown,
        Device::Desktop => DeviceClass::Desktop,
        Device::Tv => DeviceClass::Tv,
        Device::Mobile => DeviceClass::Mobile,
        Device::Server => DeviceClass::Server,
    }
}

/// When a life ends that has so many seconds left.
pub(crate) fn ends(now: u32, seconds: f64) -> u32 {
    if seconds < 3e6 {
        now.saturating_add(milliseconds(seconds).max(1))
    } else {
        NEVER
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value has been brought into the type's range"
)]
pub(crate) fn milliseconds(seconds: f64) -> u32 {
    (seconds * 1000.0).clamp(0.0, 4e9) as u32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value has been brought into the type's range"
)]
fn kbps(value: f64) -> u32 {
    value.clamp(0.0, 4e9) as u32
}
