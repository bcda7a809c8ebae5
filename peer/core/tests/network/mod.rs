//! A network in memory: engines, links with latency and bandwidth, a CDN, an origin with its signer, and
//! a clock that jumps from event to event. One seed makes everything that happens, so a failure can be
//! played again.
//!
//! Each node has a player that checks what no test may ever see: bytes other than the origin's, a chunk
//! twice, a chunk of what was not listed.

#![allow(dead_code, reason = "each test file uses a part of it")]

mod origin;
mod player;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use espalier_media::TrackIndex;
use espalier_peer_core::{
    Assignment, CdnLease, ChildAssignment, Command, EngineConfig, Event, FeedEvent, FetchId,
    FetchRequest, FetchUpdate, Generation, LinkDown, LinkSide, LinkState, PeerId, Publication,
    RelayEngine, Source, SourceReport, TrackAssignment, TrackName, Welcome,
};

pub(crate) use origin::{Origin, TARGET};
pub(crate) use player::Player;

pub(crate) const MS: Duration = Duration::from_millis(1);
const CONNECT_TIME: Duration = Duration::from_millis(150);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CDN_LATENCY: Duration = Duration::from_millis(20);
const CDN_PIECE: usize = 16_000;
const LINK_LIMIT: u64 = 192 << 10;

/// A peer, its source, and its standby.
pub(crate) type Edge = (PeerId, Source, Option<Source>);

/// A peer's place in one tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) source: Option<Source>,
    pub(crate) standby: Option<Source>,
    /// Who takes it from here, and whether only in reserve.
    pub(crate) children: Vec<(PeerId, bool)>,
}

impl Place {
    fn in_tree(peer: PeerId, tree: &[Edge]) -> Self {
        let own = tree.iter().find(|(id, ..)| *id == peer);
        let below = tree.iter().filter_map(|(child, source, standby)| {
            let (is_source, is_standby) = (Source::Peer(peer), Some(Source::Peer(peer)));
            let reserve = *standby == is_standby;
            (*source == is_source || reserve).then_some((*child, *source != is_source))
        });
        Self {
            source: own.map(|(_, source, _)| *source),
            standby: own.and_then(|(.., standby)| *standby),
            children: below.collect(),
        }
    }
}

/// What the network will do at some time.
#[derive(Debug)]
enum Action {
    Tell(PeerId, u64, Event),
    Arrive {
        link: u64,
        from: PeerId,
        to: PeerId,
        message: Bytes,
    },
    Ping {
        link: u64,
        from: PeerId,
        to: PeerId,
        message: Bytes,
    },
    Acknowledge {
        link: u64,
        to: PeerId,
        from: PeerId,
        length: u64,
    },
    Open {
        from: PeerId,
        to: PeerId,
    },
    GiveUp {
        from: PeerId,
        to: PeerId,
        attempt: u64,
    },
    Closed {
        link: u64,
        at: PeerId,
        other: PeerId,
    },
    Wake(PeerId, u64),
    Publish(u64),
    Sign(u64),
    OpenFeed(PeerId, u64),
    FeedNews(PeerId, u64, FeedEvent),
}

pub(crate) struct Node {
    pub(crate) engine: RelayEngine,
    pub(crate) player: Player,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    /// One byte in every so many DATA frames is changed on the way out; 0: none.
    pub(crate) corrupts_every: u64,
    life: u64,
    upload_bps: u64,
    uplink_free: Duration,
    held_back: VecDeque<Action>,
    wake: Option<Duration>,
    feed_wanted: bool,
    feed_serial: u64,
    feed_open: bool,
    pub(crate) feed_opened: u32,
    data_frames: u64,
    pub(crate) fetched: BTreeSet<String>,
    pub(crate) requests: Vec<(Duration, FetchRequest)>,
    pub(crate) playlists: Vec<Duration>,
    pub(crate) reports: Vec<(Duration, SourceReport)>,
    pub(crate) link_reports: Vec<(Duration, PeerId, LinkState)>,
    pub(crate) acknowledged: Generation,
    generation: Generation,
}

struct LinkInUse {
    id: u64,
    buffered: BTreeMap<PeerId, u64>,
}

/// One direction of a path that loses packets: messages stay in order, and what is lost holds up what
/// comes behind it.
struct Lossy {
    bps: u64,
    per_mille: u64,
    free: Duration,
    lost: u64,
    random: u64,
}

impl Lossy {
    const PACKET: u64 = 1_200;
    const ROUND_TRIP: Duration = Duration::from_millis(40);
    /// Each so many losses, the retransmission is lost as well, and a timer has to find out.
    const TIMEOUTS: u64 = 16;

    /// When a message that leaves now is through.
    fn carry(&mut self, length: u64, now: Duration) -> Duration {
        self.free = self.free.max(now);
        for _ in 0..length.div_ceil(Self::PACKET) {
            self.free += Duration::from_nanos(Self::PACKET * 8_000_000_000 / self.bps);
            // xorshift64*, Vigna 2016.
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            if self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % 1_000 < self.per_mille {
                self.lost += 1;
                self.free += if self.lost.is_multiple_of(Self::TIMEOUTS) {
                    Duration::from_secs(1)
                } else {
                    Self::ROUND_TRIP
                };
            }
        }
        self.free
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CdnFault {
    None,
    NotFound,
    IgnoresRanges,
    OtherBytes,
    Hangs,
}

pub(crate) struct Network {
    pub(crate) now: Duration,
    pub(crate) nodes: BTreeMap<PeerId, Node>,
    pub(crate) origin: Origin,
    pub(crate) latency: Duration,
    pub(crate) cdn_bps: u64,
    pub(crate) cdn_fault: CdnFault,
    /// Whether players read each segment as soon as it is listed, as they do at the live edge.
    pub(crate) eager_players: bool,
    /// Whether the signer works.
    pub(crate) signing: bool,
    /// Whether the origin goes on publishing.
    pub(crate) publishing: bool,
    /// Into how many stripes the tracks are cut where every stripe has the same tree.
    pub(crate) stripes: u8,
    /// STATEMENT frames that were sent, by all peers together.
    pub(crate) statements: u64,
    lossy: BTreeMap<(PeerId, PeerId), Lossy>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    actions: BTreeMap<u64, Action>,
    serial: u64,
    pending: BTreeMap<(PeerId, PeerId), (LinkSide, u64)>,
    links: BTreeMap<(PeerId, PeerId), LinkInUse>,
    cancelled: BTreeSet<(PeerId, FetchId)>,
    generation: u64,
}

pub(crate) fn peer(n: u64) -> PeerId {
    PeerId(n)
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}

impl Network {
    pub(crate) fn new(origin: Origin) -> Self {
        let mut network = Self {
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            origin,
            latency: 5 * MS,
            cdn_bps: 50_000_000,
            cdn_fault: CdnFault::None,
            eager_players: false,
            signing: true,
            publishing: true,
            stripes: 1,
            statements: 0,
            lossy: BTreeMap::new(),
            queue: BinaryHeap::new(),
            actions: BTreeMap::new(),
            serial: 0,
            pending: BTreeMap::new(),
            links: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            generation: 0,
        };
        network.at(Duration::ZERO, Action::Publish(0));
        network
    }

    fn at(&mut self, time: Duration, action: Action) {
        self.serial += 1;
        self.queue.push(Reverse((time, self.serial)));
        self.actions.insert(self.serial, action);
    }

    pub(crate) fn add(&mut self, id: u64, upload_bps: u64) -> PeerId {
        self.add_with(id, upload_bps, |_| ())
    }

    pub(crate) fn add_with(
        &mut self,
        id: u64,
        upload_bps: u64,
        configure: impl FnOnce(&mut EngineConfig),
    ) -> PeerId {
        let id = peer(id);
        let mut config = EngineConfig::new(id, "demo");
        configure(&mut config);
        let node = Node {
            engine: RelayEngine::new(config),
            player: Player::default(),
            alive: true,
            frozen: false,
            corrupts_every: 0,
            life: 0,
            upload_bps,
            uplink_free: Duration::ZERO,
            held_back: VecDeque::new(),
            wake: None,
            feed_wanted: false,
            feed_serial: 0,
            feed_open: false,
            feed_opened: 0,
            data_frames: 0,
            fetched: BTreeSet::new(),
            requests: Vec::new(),
            playlists: Vec::new(),
            reports: Vec::new(),
            link_reports: Vec::new(),
            acknowledged: Generation::default(),
            generation: Generation::default(),
        };
        self.nodes.insert(id, node);
        let welcome = Welcome {
            incarnation: 1,
            keys: self.origin.keys(),
        };
        self.tell(id, Event::SessionWelcomed(welcome));
        id
    }

    /// Gives a peer its assignment, of a new generation; the same for every stripe.
    pub(crate) fn assign(
        &mut self,
        to: PeerId,
        source: Source,
        standby: Option<Source>,
        children: &[(PeerId, bool)],
        make_before_break: bool,
    ) {
        let each = Place {
            source: Some(source),
            standby,
            children: children.to_vec(),
        };
        let places = vec![each; usize::from(self.stripes)];
        self.assign_striped(to, &places, make_before_break);
    }

    /// Gives a peer its assignment, of a new generation: a place in the tree of each stripe.
    pub(crate) fn assign_striped(&mut self, to: PeerId, places: &[Place], make_before_break: bool) {
        self.generation += 1;
        let generation = Generation {
            incarnation: 1,
            term: 1,
            index: self.generation,
        };
        let stripes = u8::try_from(places.len()).expect("few");
        let mut tracks = Vec::new();
        let mut children = Vec::new();
        for name in self.origin.track_names() {
            for (stripe, place) in (0..).zip(places) {
                tracks.push(TrackAssignment {
                    track: TrackName(name.clone()),
                    stripe,
                    stripes,
                    source: place.source,
                    standby: place.standby,
                    make_before_break,
                });
                children.extend(
                    place
                        .children
                        .iter()
                        .map(|(peer, standby)| ChildAssignment {
                            track: TrackName(name.clone()),
                            stripe,
                            peer: *peer,
                            standby: *standby,
                        }),
                );
            }
        }
        let assignment = Assignment {
            generation,
            tracks,
            children,
            cdn_lease: Some(CdnLease {
                rate_bps: 4_000_000,
                burst_bytes: 4 << 20,
                lifetime: Duration::from_secs(3_600),
            }),
            upload_bps: self.nodes[&to].upload_bps,
        };
        if let Some(node) = self.nodes.get_mut(&to) {
            node.generation = generation;
        }
        self.tell(to, Event::Assignment(assignment));
    }

    /// Assigns the trees of all stripes at once: for each stripe, (peer, source, standby) of every peer.
    pub(crate) fn plant_striped(&mut self, trees: &[Vec<Edge>], make_before_break: bool) {
        let peers: BTreeSet<PeerId> = trees.iter().flatten().map(|(peer, ..)| *peer).collect();
        for peer in peers {
            let places: Vec<Place> = trees
                .iter()
                .map(|tree| Place::in_tree(peer, tree))
                .collect();
            self.assign_striped(peer, &places, make_before_break);
        }
    }

    /// Assigns a whole tree at once: (peer, source, standby).
    pub(crate) fn plant(&mut self, tree: &[(PeerId, Source, Option<Source>)]) {
        for (peer, source, standby) in tree {
            let children: Vec<(PeerId, bool)> = tree
                .iter()
                .filter_map(|(child, source, standby)| {
                    if *source == Source::Peer(*peer) {
                        Some((*child, false))
                    } else if *standby == Some(Source::Peer(*peer)) {
                        Some((*child, true))
                    } else {
                        None
                    }
                })
                .collect();
            self.assign(*peer, *source, *standby, &children, false);
        }
    }

    pub(crate) fn tell(&mut self, to: PeerId, event: Event) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&to).filter(|node| node.alive) else {
            return;
        };
        node.engine.handle(event, now);
        let mut commands = Vec::new();
        while let Some(command) = node.engine.poll_command() {
            commands.push(command);
        }
        for command in commands {
            self.execute(to, command);
        }
        self.rearm(to);
    }

    fn rearm(&mut self, id: PeerId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let Some(at) = node.engine.poll_timeout() else {
            return;
        };
        // A shell cannot be quicker than its clock.
        let at = at.max(now + Duration::from_micros(100));
        if node.wake.is_none_or(|wake| wake > at || wake <= now) {
            node.wake = Some(at);
            let life = node.life;
            self.at(at, Action::Wake(id, life));
        }
    }

    fn execute(&mut self, from: PeerId, command: Command) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&from) else {
            return;
        };
        match command {
            Command::Connect { peer, side } => self.connect(from, peer, side),
            Command::Disconnect { peer } => self.disconnect(from, peer),
            Command::SendFrame { peer, frame } => self.send(from, peer, &frame.to_bytes()),
            Command::SendPing { peer, bytes } => {
                if let Some(link) = self.links.get(&pair(from, peer)).map(|link| link.id) {
                    let message = Bytes::copy_from_slice(&bytes);
                    self.at(
                        now + self.latency,
                        Action::Ping {
                            link,
                            from,
                            to: peer,
                            message,
                        },
                    );
                }
            }
            Command::Fetch(request) => self.fetch(from, request),
            Command::CancelFetch { id } => {
                self.cancelled.insert((from, id));
            }
            Command::FetchPlaylist { track, uri: _ } => {
                node.playlists.push(now);
                let playlist = Some(Box::new(self.origin.playlist(track.as_str())));
                let life = node.life;
                let event = Event::PlaylistFetched { track, playlist };
                self.at(now + CDN_LATENCY, Action::Tell(from, life, event));
            }
            Command::OpenFeed => {
                node.feed_wanted = true;
                node.feed_serial += 1;
                let serial = node.feed_serial;
                self.at(now + 10 * MS, Action::OpenFeed(from, serial));
            }
            Command::CloseFeed => {
                node.feed_wanted = false;
                node.feed_open = false;
                node.feed_serial += 1;
            }
            Command::Publish(publication) => {
                if let Publication::Listed(statement) = &publication
                    && let Some(descriptor) = statement.as_object()
                    && self.eager_players
                {
                    let event = Event::PlayerWants {
                        object: descriptor.key,
                    };
                    let action = Action::Tell(from, node.life, event);
                    node.player.take(publication, &self.origin, now);
                    self.at(now + MS, action);
                } else {
                    node.player.take(publication, &self.origin, now);
                }
            }
            Command::Acknowledge { generation } => node.acknowledged = generation,
            Command::ReportLink {
                peer,
                state,
                detail: _,
            } => {
                node.link_reports.push((now, peer, state));
            }
            Command::ReportSource(report) => node.reports.push((now, report)),
            Command::ReportTracksWanted { .. } => {}
        }
    }

    fn connect(&mut self, from: PeerId, to: PeerId, side: LinkSide) {
        let now = self.now;
        self.serial += 1;
        let attempt = self.serial;
        self.pending.insert((from, to), (side, attempt));
        if side == LinkSide::Offer {
            self.at(now + OPEN_TIMEOUT, Action::GiveUp { from, to, attempt });
        }
        self.at(now + CONNECT_TIME, Action::Open { from, to });
    }

    fn open(&mut self, a: PeerId, b: PeerId) {
        let both = self.pending.contains_key(&(a, b)) && self.pending.contains_key(&(b, a));
        let alive = |id: PeerId| self.nodes.get(&id).is_some_and(|n| n.alive && !n.frozen);
        if !both || !alive(a) || !alive(b) || self.links.contains_key(&pair(a, b)) {
            return;
        }
        self.pending.remove(&(a, b));
        self.pending.remove(&(b, a));
        self.serial += 1;
        let link = LinkInUse {
            id: self.serial,
            buffered: BTreeMap::from([(a, 0), (b, 0)]),
        };
        self.links.insert(pair(a, b), link);
        self.tell(a, Event::LinkUp { peer: b });
        self.tell(b, Event::LinkUp { peer: a });
    }

    fn disconnect(&mut self, from: PeerId, to: PeerId) {
        self.pending.remove(&(from, to));
        if let Some(link) = self.links.remove(&pair(from, to)) {
            let at = self.now + self.latency * 2;
            self.at(
                at,
                Action::Closed {
                    link: link.id,
                    at: to,
                    other: from,
                },
            );
        }
    }

    /// Makes the path between two peers carry no more than this, and lose so many packets of a thousand.
    pub(crate) fn make_lossy(&mut self, a: PeerId, b: PeerId, bps: u64, per_mille: u64) {
        for (direction, seed) in [((a, b), 1), ((b, a), 2)] {
            let lossy = Lossy {
                bps,
                per_mille,
                free: Duration::ZERO,
                lost: 0,
                random: seed,
            };
            self.lossy.insert(direction, lossy);
        }
    }

    /// Breaks a link under both ends, as a transport that noticed would tell it.
    pub(crate) fn cut(&mut self, a: PeerId, b: PeerId) {
        if self.links.remove(&pair(a, b)).is_some() {
            self.tell(
                a,
                Event::LinkDown {
                    peer: b,
                    reason: LinkDown::Lost,
                },
            );
            self.tell(
                b,
                Event::LinkDown {
                    peer: a,
                    reason: LinkDown::Lost,
                },
            );
        }
    }

    fn send(&mut self, from: PeerId, to: PeerId, message: &Bytes) {
        let (now, latency) = (self.now, self.latency);
        let Some(link) = self.links.get_mut(&pair(from, to)) else {
            return;
        };
        let id = link.id;
        let length = message.len() as u64;
        let buffered = link.buffered.entry(from).or_default();
        *buffered += length;
        assert!(
            *buffered <= LINK_LIMIT + 4_096,
            "the transport would refuse this frame"
        );
        let Some(node) = self.nodes.get_mut(&from) else {
            return;
        };
        let mut message = message.clone();
        self.statements += u64::from(message.first() == Some(&2));
        if message.first() == Some(&3) {
            node.data_frames += 1;
            if node.corrupts_every > 0 && node.data_frames % node.corrupts_every == 0 {
                let mut changed = message.to_vec();
                if let Some(last) = changed.last_mut() {
                    *last ^= 1;
                }
                message = changed.into();
            }
        }
        let bits = (length + length / 16 + 40) * 8;
        let time = Duration::from_nanos(bits * 1_000_000_000 / node.upload_bps.max(1));
        node.uplink_free = node.uplink_free.max(now) + time;
        let mut at = node.uplink_free + latency;
        if let Some(lossy) = self.lossy.get_mut(&(from, to)) {
            at = at.max(lossy.carry(length, now) + latency);
        }
        self.at(
            at,
            Action::Arrive {
                link: id,
                from,
                to,
                message,
            },
        );
    }

    fn link_is(&self, link: u64, a: PeerId, b: PeerId) -> bool {
        self.links
            .get(&pair(a, b))
            .is_some_and(|found| found.id == link)
    }

    fn fetch(&mut self, from: PeerId, request: FetchRequest) {
        let now = self.now;
        let fault = self.cdn_fault;
        let Some(node) = self.nodes.get_mut(&from) else {
            return;
        };
        let life = node.life;
        node.fetched.insert(request.uri.clone());
        node.requests.push((now, request.clone()));
        let id = request.id;
        let mut at = now + CDN_LATENCY;
        let body = self.origin.resource(&request.uri, now);
        let (Some(mut body), false) = (body, fault == CdnFault::NotFound) else {
            let update = FetchUpdate::Failed {
                status: Some(404),
                reason: "not found".into(),
            };
            self.at(at, Action::Tell(from, life, Event::Fetch { id, update }));
            return;
        };
        if fault == CdnFault::Hangs {
            return;
        }
        if fault == CdnFault::OtherBytes {
            body = body
                .iter()
                .map(|byte| byte ^ 0x55)
                .collect::<Vec<_>>()
                .into();
        }
        let range = request.range.filter(|_| fault != CdnFault::IgnoresRanges);
        if let Some(range) = range {
            let offset = usize::try_from(range.offset).expect("small");
            let end = usize::try_from(range.offset + range.length)
                .expect("small")
                .min(body.len());
            body = body.slice(offset..end);
        }
        let update = FetchUpdate::Started {
            partial: range.is_some(),
            length: Some(body.len() as u64),
        };
        self.at(at, Action::Tell(from, life, Event::Fetch { id, update }));
        while !body.is_empty() {
            let piece = body.split_to(CDN_PIECE.min(body.len()));
            at += Duration::from_nanos(piece.len() as u64 * 8_000_000_000 / self.cdn_bps);
            let update = FetchUpdate::Body(piece);
            self.at(at, Action::Tell(from, life, Event::Fetch { id, update }));
        }
        self.at(
            at,
            Action::Tell(
                from,
                life,
                Event::Fetch {
                    id,
                    update: FetchUpdate::End,
                },
            ),
        );
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub(crate) fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((at, serial))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(action) = self.actions.remove(&serial) {
                self.act(action);
            }
        }
        self.now = end;
    }

    fn act(&mut self, action: Action) {
        let to = match &action {
            Action::Tell(to, ..)
            | Action::Arrive { to, .. }
            | Action::Ping { to, .. }
            | Action::Acknowledge { to, .. }
            | Action::FeedNews(to, ..)
            | Action::Closed { at: to, .. }
            | Action::Wake(to, _) => Some(*to),
            Action::Open { .. }
            | Action::GiveUp { .. }
            | Action::Publish(_)
            | Action::Sign(_)
            | Action::OpenFeed(..) => None,
        };
        if let Some(node) = to.and_then(|to| self.nodes.get_mut(&to)) {
            if !node.alive {
                return;
            }
            if node.frozen {
                node.held_back.push_back(action);
                return;
            }
        }
        self.act_now(action);
    }

    fn act_now(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Tell(to, life, event) => {
                if self.nodes[&to].life != life || self.is_cancelled(to, &event) {
                    return;
                }
                self.tell(to, event);
            }
            Action::Arrive {
                link,
                from,
                to,
                message,
            } => {
                if self.link_is(link, from, to) {
                    let length = message.len() as u64;
                    let ack = Action::Acknowledge {
                        link,
                        to: from,
                        from: to,
                        length,
                    };
                    self.at(now + self.latency, ack);
                    self.tell(
                        to,
                        Event::Frame {
                            peer: from,
                            bytes: message,
                        },
                    );
                }
            }
            Action::Ping {
                link,
                from,
                to,
                message,
            } => {
                if self.link_is(link, from, to) {
                    self.tell(
                        to,
                        Event::Ping {
                            peer: from,
                            bytes: message,
                        },
                    );
                }
            }
            Action::Acknowledge {
                link,
                to,
                from,
                length,
            } => {
                let Some(found) = self.links.get_mut(&pair(to, from)).filter(|l| l.id == link)
                else {
                    return;
                };
                let buffered = found.buffered.entry(to).or_default();
                *buffered = buffered.saturating_sub(length);
                let bytes = *buffered;
                self.tell(to, Event::Buffered { peer: from, bytes });
            }
            Action::Open { from, to } => self.open(from, to),
            Action::GiveUp { from, to, attempt } => {
                if self
                    .pending
                    .get(&(from, to))
                    .is_some_and(|(_, known)| *known == attempt)
                {
                    self.pending.remove(&(from, to));
                    self.tell(
                        from,
                        Event::LinkFailed {
                            peer: to,
                            reason: "timeout".into(),
                        },
                    );
                }
            }
            Action::Closed { link: _, at, other } => {
                if !self.links.contains_key(&pair(at, other)) {
                    let pending = self.pending.contains_key(&(at, other));
                    if !pending {
                        let reason = LinkDown::Closed;
                        self.tell(
                            at,
                            Event::LinkDown {
                                peer: other,
                                reason,
                            },
                        );
                    }
                }
            }
            Action::Wake(id, life) => {
                let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else {
                    return;
                };
                if node.wake == Some(now) {
                    node.wake = None;
                    self.tell(id, Event::Timeout);
                }
            }
            Action::Publish(sequence) => self.publish(sequence),
            Action::Sign(sequence) => self.sign(sequence),
            Action::OpenFeed(id, serial) => self.open_feed(id, serial),
            Action::FeedNews(id, serial, event) => {
                let node = &self.nodes[&id];
                if node.feed_open && node.feed_serial == serial {
                    self.tell(id, Event::Feed(event));
                }
            }
        }
    }

    fn is_cancelled(&self, to: PeerId, event: &Event) -> bool {
        matches!(event, Event::Fetch { id, .. } if self.cancelled.contains(&(to, *id)))
    }

    fn publish(&mut self, sequence: u64) {
        let now = self.now;
        if self.publishing {
            self.origin.publish(now);
            if self.signing {
                for announce in self.origin.announcements(sequence) {
                    self.news(&announce, 20 * MS);
                }
                self.at(now + 150 * MS, Action::Sign(sequence));
            }
        }
        self.at(now + TARGET, Action::Publish(self.origin.next_sequence()));
    }

    fn sign(&mut self, sequence: u64) {
        if self.signing {
            for statement in self.origin.sign(sequence) {
                self.news(&FeedEvent::Statement(statement), MS);
            }
        }
    }

    fn news(&mut self, event: &FeedEvent, delay: Duration) {
        let at = self.now + delay;
        let open: Vec<(PeerId, u64)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.feed_open)
            .map(|(id, node)| (*id, node.feed_serial))
            .collect();
        for (id, serial) in open {
            self.at(at, Action::FeedNews(id, serial, event.clone()));
        }
    }

    fn open_feed(&mut self, id: PeerId, serial: u64) {
        let now = self.now;
        let signing = self.signing;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.alive) else {
            return;
        };
        if !node.feed_wanted || node.feed_serial != serial {
            return;
        }
        if !signing {
            self.at(now + 300 * MS, Action::OpenFeed(id, serial));
            return;
        }
        node.feed_open = true;
        node.feed_opened += 1;
        let statements = self.origin.window();
        let messages = core::iter::once(FeedEvent::Opened)
            .chain(statements.into_iter().map(FeedEvent::Statement))
            .chain([FeedEvent::CaughtUp]);
        for message in messages {
            self.at(now, Action::FeedNews(id, serial, message));
        }
    }

    /// The signer dies: every feed is lost.
    pub(crate) fn stop_signing(&mut self) {
        self.signing = false;
        let open: Vec<PeerId> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.feed_open)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.feed_open = false;
                let serial = node.feed_serial;
                self.at(self.now + 300 * MS, Action::OpenFeed(id, serial));
            }
            self.tell(id, Event::Feed(FeedEvent::Lost));
        }
    }

    /// The signer is back, and signs what it missed.
    pub(crate) fn resume_signing(&mut self) {
        self.signing = true;
        self.origin.sign_all();
    }

    /// As kill -9: nothing is heard of it any more, and nobody is told.
    pub(crate) fn kill(&mut self, id: PeerId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.alive = false;
            node.life += 1;
        }
        self.pending.retain(|(a, b), _| *a != id && *b != id);
    }

    pub(crate) fn freeze(&mut self, id: PeerId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.frozen = true;
        }
    }

    pub(crate) fn thaw(&mut self, id: PeerId) {
        let held = self.nodes.get_mut(&id).map(|node| {
            node.frozen = false;
            std::mem::take(&mut node.held_back)
        });
        for action in held.into_iter().flatten() {
            self.act_now(action);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.wake = None;
        }
        self.tell(id, Event::Timeout);
    }

    pub(crate) fn node(&self, id: PeerId) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn node_mut(&mut self, id: PeerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("added")
    }

    pub(crate) fn is_linked(&self, a: PeerId, b: PeerId) -> bool {
        self.links.contains_key(&pair(a, b))
    }

    /// How long after its signing each segment was complete at a peer.
    pub(crate) fn delays(&self, id: PeerId) -> Vec<(u64, Duration)> {
        let player = &self.nodes[&id].player;
        player
            .completed
            .iter()
            .filter_map(|(sequence, at)| {
                Some((
                    *sequence,
                    at.checked_sub(self.origin.signed_at(*sequence)?)?,
                ))
            })
            .collect()
    }

    /// The longest of them, from a segment on.
    pub(crate) fn worst_delay(&self, id: PeerId, from: u64) -> Duration {
        let delays = self
            .delays(id)
            .into_iter()
            .filter(|(sequence, _)| *sequence >= from);
        delays.map(|(_, delay)| delay).max().unwrap_or_default()
    }

    /// Everything from the first to the newest but `slack` segments was published, none twice.
    pub(crate) fn assert_gapless(&self, slack: u64) {
        for (id, node) in self
            .nodes
            .iter()
            .filter(|(_, node)| node.alive && !node.frozen)
        {
            let had = node.player.had();
            let first = had.iter().next().copied();
            let Some(first) = first else {
                panic!("{id} played nothing")
            };
            let newest = self.origin.next_sequence().saturating_sub(1);
            for sequence in first..=newest.saturating_sub(slack) {
                let has = |track| node.player.has_other(track, sequence);
                assert!(
                    (1..self.origin.tracks()).all(has),
                    "{id}: segment {sequence} of another track"
                );
                assert!(
                    had.contains(&sequence),
                    "{id} misses segment {sequence} of {newest}: {had:?}"
                );
            }
        }
    }

    /// The same for one peer, from a segment on.
    pub(crate) fn assert_gapless_from(&self, id: PeerId, first: u64, slack: u64) {
        let had = self.nodes[&id].player.had();
        let newest = self.origin.next_sequence().saturating_sub(1);
        for sequence in first..=newest.saturating_sub(slack) {
            assert!(
                had.contains(&sequence),
                "{id} misses segment {sequence} of {newest}: {had:?}"
            );
        }
    }

    pub(crate) fn requests_since(&self, id: PeerId, since: Duration) -> usize {
        self.nodes[&id]
            .requests
            .iter()
            .filter(|(at, _)| *at >= since)
            .count()
    }

    pub(crate) fn track() -> TrackIndex {
        TrackIndex(0)
    }
}
