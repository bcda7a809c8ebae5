/**
 * The relay engine: what to ask, verify, serve, and when to fall back. Pure, and the twin of `peer/core`.
 *
 * A shell calls {@link RelayEngine.handle} with what happened, then drains {@link RelayEngine.commands}. Time is an
 * argument in milliseconds and never runs backwards. Cheap events touch only what they concern; everything that
 * follows from time or from a change of circumstances is decided in a tick, from scratch each time.
 *
 * Invariant: no chunk is stored, published or relayed unless a statement signed by a trusted key vouches for it.
 * There is no socket, no clock, no randomness of its own and no HLS text in here.
 */
import type { ObjectKey } from "../media/object.js";
import type { SignedStatement, TrustedKeys } from "../media/statement.js";
import { onAssignment, onWelcome } from "./assignment.js";
import { tendBypass } from "./bypass.js";
import { Lease, type Fetch } from "./cdn.js";
import { onFetch, tendFetches } from "./fetching.js";
import type { Link } from "./link.js";
import {
  onBuffered,
  onLinkDown,
  onLinkFailed,
  onLinkUp,
  onPing,
  syncLinks,
  tendLinks,
} from "./links.js";
import { TokenBucket } from "./pacer.js";
import { onFrame } from "./receive.js";
import { reflect, tendFeed } from "./reflex.js";
import { repair } from "./repair.js";
import { reportSources } from "./reports.js";
import { Ring } from "./ring.js";
import { pump, WHOLE_CHUNK } from "./serving.js";
import { onFeed, onPlayerWants } from "./statements.js";
import type { Track } from "./track.js";
import {
  inOrder,
  noCounts,
  type Command,
  type EngineConfig,
  type Event,
  type Generation,
  type HeldEdge,
  type Publication,
} from "./types.js";

const BUSY_TICK = 50;
const FLOWING_TICK = 100;
const IDLE_TICK = 250;
/** How soon after the last tick an event may bring the next one forward. */
const TICK_AGAIN = 40;
const MASK = (1n << 64n) - 1n;

export class RelayEngine {
  now = 0;
  readonly commands: Command[] = [];
  private randomState: bigint;
  /** Circumstances changed: decide anew. */
  dirty = false;
  private lastTick = 0;
  nextTick = 0;

  incarnation: bigint | undefined;
  generation: Generation = { incarnation: 0n, term: 0n, index: 0n };
  keys: TrustedKeys = new Map();
  children = new Set<string>();
  /** Those of them that take a track's stripe from here as assigned, not in reserve: see {@link childName}. */
  activeChildren = new Map<string, string>();

  readonly feed = { wanted: false, open: false, caughtUp: false };
  master: SignedStatement | undefined;
  /** Statements that were verified lately, by the hash of their bytes, and what object they describe. */
  readonly verified = new Map<string, ObjectKey | undefined>();
  /** Statements about tracks that are not taken. */
  spare: SignedStatement[] = [];

  tracks: Track[] = [];
  readonly ring: Ring;
  readonly links = new Map<string, Link>();
  /** Peers that sent something false: no link to them until then. */
  readonly separated = new Map<string, number>();

  readonly fetches = new Map<number, Fetch>();
  nextFetch = 0;
  ignoresRanges = false;
  readonly lease: Lease;

  pacer = new TokenBucket(0, 0, 0);
  fragment = WHOLE_CHUNK;
  /** The child that was served last. */
  served = "";
  pacerBlocks = false;

  readonly counters = noCounts();

  constructor(readonly config: EngineConfig) {
    const random = config.seed ^ 0x9e37_79b9_7f4a_7c15n;
    this.randomState = random === 0n ? 1n : random;
    this.ring = new Ring(config.ringBytes);
    this.lease = new Lease(config.defaultLease);
  }

  /** Takes note of what happened. Drain {@link commands} afterwards. */
  handle(event: Event, now: number): void {
    this.now = Math.max(this.now, now);
    this.take(event);
    if (this.dirty || this.now >= Math.min(this.nextTick, this.lastTick + TICK_AGAIN)) this.tick();
    pump(this);
  }

  private take(event: Event): void {
    switch (event.type) {
      case "welcome":
        onWelcome(this, event.incarnation, event.keys);
        break;
      case "assignment":
        onAssignment(this, event.assignment);
        break;
      case "link_up":
        onLinkUp(this, event.peer);
        break;
      case "link_failed":
        onLinkFailed(this, event.peer, event.reason);
        break;
      case "link_down":
        onLinkDown(this, event.peer, event.reason);
        break;
      case "frame":
        onFrame(this, event.peer, event.bytes);
        break;
      case "ping":
        onPing(this, event.peer, event.bytes);
        break;
      case "buffered":
        onBuffered(this, event.peer, event.bytes);
        break;
      case "feed":
        onFeed(this, event.event);
        break;
      case "fetch":
        onFetch(this, event.id, event.update);
        break;
      case "player_wants":
        onPlayerWants(this, event.object);
        break;
      case "tracks_wanted":
        this.commands.push({ type: "report_tracks_wanted", tracks: event.tracks });
        break;
      case "timeout":
        break;
    }
  }

  /** When to call {@link handle} with a timeout. Ask again after each event. */
  timeout(): number {
    const ready = this.pacerBlocks ? this.pacer.readyAt() : undefined;
    return Math.min(this.nextTick, ready ?? Infinity);
  }

  private tick(): void {
    this.dirty = false;
    this.lastTick = this.now;
    tendLinks(this);
    syncLinks(this);
    for (const track of this.tracks) {
      track.playout.advance(this.now);
      reflect(this, track);
      tendBypass(this, track);
      repair(this, track);
      reportSources(this, track);
    }
    tendFetches(this);
    tendFeed(this);
    this.makeRoom();
    this.schedule();
  }

  private schedule(): void {
    const unsettled = this.tracks.some(
      (track) =>
        track.unsigned.size > 0 || track.stripes.some((stripe) => !stripe.decision.flowing),
    );
    const isRoot = this.tracks.some((track) =>
      track.stripes.some((stripe) => stripe.rootSince !== undefined),
    );
    const receives = this.ring.wantsAny;
    const idle = receives ? FLOWING_TICK : IDLE_TICK;
    let at = this.now + (unsettled || (receives && isRoot) ? BUSY_TICK : idle);
    for (const link of this.links.values())
      if (link.phase === "up") at = Math.min(at, link.liveness.timeout(this.now));
    // Never at once again, whatever happened: a link that stays dead must not spin.
    this.nextTick = Math.max(at, this.now + 1);
  }

  private makeRoom(): void {
    const target = Math.max(0, ...this.tracks.map((track) => track.target));
    const evicted = this.ring.evict(Math.max(0, this.now - target * 4));
    for (const { index } of this.tracks)
      if (index !== undefined) evicted.push(...this.ring.prune(index));
    for (const object of evicted) this.publish({ type: "evicted", object });
  }

  publish(publication: Publication): void {
    this.commands.push({ type: "publish", publication });
  }

  trackOf(index: number): Track | undefined {
    return this.tracks.find((track) => track.index === index);
  }

  /** Pseudo-random (xorshift64*, Vigna 2016), the same for the same seed: for jitter and nonces, not for secrets. */
  random(): bigint {
    let x = this.randomState;
    x ^= x >> 12n;
    x ^= (x << 25n) & MASK;
    x ^= x >> 27n;
    this.randomState = x;
    return (x * 0x2545_f491_4f6c_dd1dn) & MASK;
  }

  /** What a session that is opened again must say. */
  held(): HeldEdge[] {
    return this.tracks.flatMap((track) =>
      track.stripes.map((stripe, number) => ({
        track: track.name,
        stripe: number,
        source: stripe.decision.active ?? stripe.assigned.source,
        standby: stripe.assigned.standby,
        children: inOrder(this.links)
          .filter(
            ([, link]) =>
              track.index !== undefined && link.takes(track.index, number, track.stripes.length),
          )
          .map(([peer]) => peer),
      })),
    );
  }

  /** What the player has by the engine's model: of the worst track. */
  playout(now: number): { buffer: number; latency: number; stalls: number; stalledMs: number } {
    const players = this.tracks.map((track) => track.playout);
    const stalls = players.map((playout) => playout.stalls(now));
    return {
      buffer: players.length ? Math.min(...players.map((playout) => playout.buffer(now))) : 0,
      latency: Math.max(0, ...players.map((playout) => playout.latency(now))),
      stalls: Math.max(0, ...stalls.map(({ count }) => count)),
      stalledMs: Math.max(0, ...stalls.map(({ ms }) => ms)),
    };
  }
}

/** Names who takes which stripe of which track. */
export function childName(track: string, stripe: number, peer: string): string {
  return `${track}/${stripe}/${peer}`;
}
