/** The chunks that are late: who is asked for them, and when the CDN is. */
import type { ObjectKey } from "../media/object.js";
import { MAX_RANGES, type ChunkRun } from "./frame.js";
import { send } from "./links.js";
import { takeFromCdn } from "./ranges.js";
import { subscribeAnew } from "./reflex.js";
import type { RelayEngine } from "./relay_engine.js";
import type { RingObject, Share } from "./ring_object.js";
import type { Stripe, Track } from "./track.js";
import { peerOf } from "./types.js";

const MAX_OBJECTS = 32;
const START_OBJECTS = 3;
const STALLED_AFTER = 1_000;
const CHUNKS_UNDER_WAY = 3;
const ASK_AGAIN = 1_000;
const PLAYER_PATIENCE = 700;
const JOIN_PATIENCE = 1_500;
const CDN_LEAD_TENTHS = 6;
const CDN_LEAD = { least: 800, most: 3_000 };
const CDN_LEAD_FLOWING = 400;
const LULL = { least: 500, intervals: 3 };
const UNLISTED_AFTER = 8;
const MAX_FAILURES = 5;

type Remedy = "wait" | "cdn" | "start" | { readonly ask: string };

export function repair(e: RelayEngine, track: Track): void {
  if (track.index === undefined) return;
  // What the source of each stripe has to bring before an object is whole, in chunks.
  const backlogs = track.stripes.map(() => 0);
  for (const key of e.ring.wantedOf(track.index).slice(0, MAX_OBJECTS)) {
    const object = e.ring.get(key);
    if (object?.status === "wanted") repairObject(e, track, object, backlogs);
  }
}

function repairObject(e: RelayEngine, track: Track, object: RingObject, backlogs: number[]): void {
  const open: number[] = [];
  for (const number of track.stripes.keys()) {
    const share = object.share(number);
    const read = object.shareIsRead(number);
    backlogs[number] = (backlogs[number] ?? 0) + (read || share.asked ? 1 : share.missing);
    if (share.missing > 0 && (!read || isLeftOut(track, number, object))) open.push(number);
  }
  if (open.length === 0) return;
  if (!object.isBeingRead && isHopeless(e, track, object)) {
    giveUp(e, track, object.key);
    return;
  }
  const asks = new Map<string, Set<number>>();
  const cdn = new Set<number>();
  let starts = false;
  for (const number of open) {
    const remedy = remedyFor(e, track, number, object, backlogs[number] ?? 0);
    if (remedy === "wait") continue;
    if (typeof remedy === "object") {
      asks.set(remedy.ask, (asks.get(remedy.ask) ?? new Set()).add(number));
      continue;
    }
    starts ||= remedy === "start";
    cdn.add(number);
  }
  if (starts) track.startObjects += 1;
  askEach(e, track, object.key, asks);
  if (cdn.size > 0) takeFromCdn(e, track, object.key, cdn);
}

/** Whether some of a stripe is read and some is not. */
function isLeftOut(track: Track, number: number, object: RingObject): boolean {
  return track.stripes.length > 1 && object.missingRuns(new Set([number])).length > 0;
}

function remedyFor(
  e: RelayEngine,
  track: Track,
  number: number,
  object: RingObject,
  backlog: number,
): Remedy {
  const [stripe, share] = [track.stripe(number), object.share(number)];
  if (e.now < object.retryAt) return "wait";
  if (stripe.decision.root) return "cdn";
  if (object.playerWaits !== undefined && !stripe.isInFlow(object.key))
    return remedyForPlayer(e, track, number, object, object.playerWaits);
  const left = timeLeft(e, track, object.key);
  const progress = Math.max(stripe.progress, object.arrived);
  const lull = Math.max(stripe.chunkInterval * LULL.intervals, LULL.least);
  const flowing = stripe.decision.flowing && e.now < progress + lull;
  const patience = Math.min(
    Math.max((track.target * CDN_LEAD_TENTHS) / 10, CDN_LEAD.least),
    CDN_LEAD.most,
  );
  if (left < (flowing ? CDN_LEAD_FLOWING : patience)) return "cdn";
  const stalled = e.now >= progress + STALLED_AFTER && !stripe.decision.patient;
  // At the pace at which chunks come, this object would not be whole in time.
  const behind = left < stripe.chunkInterval * backlog || (left < track.target && !flowing);
  const refused = share.refusedBy.length > 0;
  // What the standby lacks, the parent may still bring.
  const awaited = (peer: string) => stripe.subscribed.size === 0 || stripe.subscribed.has(peer);
  const helper = helperOf(e, stripe, share);
  if (helper !== undefined && (behind || stalled || refused)) return { ask: helper };
  return helper === undefined && share.refusedBy.some(awaited) ? "cdn" : "wait";
}

function remedyForPlayer(
  e: RelayEngine,
  track: Track,
  number: number,
  object: RingObject,
  since: number,
): Remedy {
  const [stripe, share] = [track.stripe(number), object.share(number)];
  // As long as chunks of it come, they are waited for, but not for ever.
  const moving = Math.min(share.lastChunk, since + track.target);
  const waited = Math.max(0, e.now - Math.max(since, moving));
  const active = peerOf(stripe.decision.active);
  const parent =
    active !== undefined &&
    !stripe.decision.repairing &&
    !share.refusedBy.includes(active) &&
    canAsk(e, active)
      ? active
      : undefined;
  if (parent !== undefined) {
    if (waited >= PLAYER_PATIENCE) return "cdn";
    return share.asked ? "wait" : { ask: parent };
  }
  if (track.treeFlowed) return "cdn";
  if (track.startObjects < START_OBJECTS) return "start";
  return waited >= JOIN_PATIENCE ? "cdn" : "wait";
}

function helperOf(e: RelayEngine, stripe: Stripe, share: Share): string | undefined {
  const standby = peerOf(stripe.assigned.standby);
  if (standby === undefined) return undefined;
  const recently = share.asked?.peer === standby && e.now < share.asked.at + ASK_AGAIN;
  const suitable =
    !stripe.subscribed.has(standby) &&
    !stripe.repairingPeers.has(standby) &&
    !share.refusedBy.includes(standby) &&
    !recently &&
    canAsk(e, standby);
  return suitable ? standby : undefined;
}

function canAsk(e: RelayEngine, peer: string): boolean {
  const link = e.links.get(peer);
  return link !== undefined && link.isReady && link.health(e.now) === "alive";
}

function timeLeft(e: RelayEngine, track: Track, key: ObjectKey): number {
  const left =
    key.kind === "segment"
      ? track.playout.timeTo(key, e.now)
      : track.playout.timeToFirstFrom(key, e.now);
  return left ?? track.target * 2;
}

function askEach(
  e: RelayEngine,
  track: Track,
  object: ObjectKey,
  asks: Map<string, Set<number>>,
): void {
  for (const peer of [...asks.keys()].sort()) {
    const runs: ChunkRun[] = [];
    for (const number of track.stripes.keys()) {
      const asked = e.ring.get(object)?.share(number).asked;
      if (asks.get(peer)?.has(number)) runs.push(...ask(e, track, number, object, peer));
      else if (asked?.peer === peer && e.now < asked.at + ASK_AGAIN)
        runs.push(...missingOf(e, object, number));
    }
    const ranges = merge(runs.sort((a, b) => a.first - b.first)).slice(0, MAX_RANGES);
    if (ranges.length === 0) continue;
    e.counters.repairRequests += 1;
    send(e, peer, { type: "request", object, ranges });
  }
}

/** The runs of a stripe to ask a peer for: not what is under way from its parent. */
function ask(
  e: RelayEngine,
  track: Track,
  number: number,
  object: ObjectKey,
  peer: string,
): ChunkRun[] {
  const { subscribed } = track.stripe(number);
  const others = subscribed.size > 0 && !subscribed.has(peer);
  const underWay = others ? chunksUnderWay(e, track, number, object) : 0;
  const share = e.ring.get(object)?.share(number);
  const runs = leaveUnderWay(missingOf(e, object, number), underWay).slice(0, MAX_RANGES);
  if (share) share.asked = { peer, at: e.now };
  if (others)
    for (const parent of [...subscribed.keys()].sort())
      for (const { first, count } of runs)
        send(e, parent, { type: "cancel", object, first, count });
  disappoint(e, object);
  return runs;
}

/** What the standby was asked for and lacks, the parents are to send after all, as soon as they can. */
export function unite(e: RelayEngine, track: Track, number: number): void {
  const { index } = track;
  if (index === undefined) return;
  for (const parent of [...track.stripe(number).subscribed.keys()].sort()) {
    const leftOut = e.ring.wantedOf(index).some((key) => {
      const share = e.ring.get(key)?.share(number);
      return share?.asked && share.missing > 0 && !share.refusedBy.includes(parent);
    });
    if (leftOut) subscribeAnew(e, track, index, number, parent);
  }
}

/** Whether this peer lacks some of these chunks and had to ask somebody for them by name. */
export function asksForItself(
  e: RelayEngine,
  key: ObjectKey,
  ranges: readonly ChunkRun[],
): boolean {
  const object = e.ring.get(key);
  if (object?.status !== "wanted") return false;
  return ranges.some(({ first, count }) => {
    const end = Math.min(first + count, object.chunkCount);
    for (let chunk = first; chunk < end; chunk++)
      if (!object.chunk(chunk) && object.share(object.stripeOf(chunk)).asked) return true;
    return false;
  });
}

/** Tells those who wait here for an object that this peer asks for it itself. */
function disappoint(e: RelayEngine, object: ObjectKey): void {
  const waiting = [...e.links].filter(
    ([, link]) => link.isReady && link.downstream.waitsFor(object),
  );
  for (const peer of waiting.map(([id]) => id).sort())
    send(e, peer, { type: "unavailable", object });
}

function missingOf(e: RelayEngine, object: ObjectKey, stripe: number): ChunkRun[] {
  const runs = e.ring.get(object)?.missingRuns(new Set([stripe])) ?? [];
  return runs.map(([first, count]) => ({ first, count }));
}

function leaveUnderWay(runs: readonly ChunkRun[], underWay: number): ChunkRun[] {
  let left = underWay;
  return runs.flatMap(({ first, count }) => {
    const skipped = Math.min(left, count);
    left -= skipped;
    return skipped === count ? [] : [{ first: first + skipped, count: count - skipped }];
  });
}

function merge(runs: readonly ChunkRun[]): ChunkRun[] {
  const merged: ChunkRun[] = [];
  for (const run of runs) {
    const last = merged.at(-1);
    if (last && last.first + last.count === run.first)
      merged[merged.length - 1] = { first: last.first, count: last.count + run.count };
    else merged.push(run);
  }
  return merged;
}

function chunksUnderWay(e: RelayEngine, track: Track, number: number, key: ObjectKey): number {
  const object = e.ring.get(key);
  if (!object) return 0;
  const [stripe, share] = [track.stripe(number), object.share(number)];
  const tight = timeLeft(e, track, key) < track.target;
  // Where it was divided before, what is under way now is under way from both.
  const moving = share.asked
    ? e.now < share.lastChunk + LULL.least
    : stripe.decision.flowing && e.now < stripe.progress + LULL.least;
  if (moving && !tight) return CHUNKS_UNDER_WAY;
  return !share.asked && share.missing > 2 ? 1 : 0;
}

function isHopeless(e: RelayEngine, track: Track, object: RingObject): boolean {
  const { key } = object;
  const window = BigInt(track.trackHeader?.windowSegments ?? 0);
  const { newest } = track;
  const listed =
    newest?.epoch === key.epoch && window > 0n
      ? key.sequence + window > newest.sequence
      : e.now < object.arrived + track.target * UNLISTED_AFTER;
  const waits = object.playerWaits !== undefined && e.now < object.playerWaits + track.target * 4;
  return object.failedFetches >= MAX_FAILURES && !listed && !waits && timeLeft(e, track, key) === 0;
}

function giveUp(e: RelayEngine, track: Track, key: ObjectKey): void {
  e.ring.lose(key);
  e.counters.objectsMissed += 1;
  track.playout.makeAvailable(key, e.now);
}
