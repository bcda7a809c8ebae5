/** Carries out what `upstream` decides: subscriptions, the feed, what children are told. */
import { compareKeys, segmentKey, type ObjectKey } from "../media/object.js";
import type { Cursor } from "./frame.js";
import { send } from "./links.js";
import type { RelayEngine } from "./relay_engine.js";
import type { Stripe, Subscribed, Track } from "./track.js";
import { inOrder, peerOf, type Source } from "./types.js";
import { decide, type Candidate, type Condition, type Facts } from "./upstream.js";

/** How long a link may take to open before its peer counts as gone. */
const OPENING_PATIENCE = 5_000;
/** How long a new subscription is watched before it counts as one that leaves nothing to be desired. */
const SETTLING = 500;
const EXPECTED_REPAIR = 3_000;
const MAX_CANCELS = 32;

/** Takes a track from where it is best taken now, each stripe for itself. */
export function reflect(e: RelayEngine, track: Track): void {
  for (const number of track.stripes.keys()) reflectStripe(e, track, number);
  dropStale(e, track);
}

function reflectStripe(e: RelayEngine, track: Track, number: number): void {
  const stripe = track.stripe(number);
  for (const [peer, until] of [...stripe.refused]) if (e.now >= until) stripe.refused.delete(peer);
  const decision = decide(factsOf(e, track, number));
  stripe.decision = decision;
  if (!decision.keepPrevious) stripe.previous = undefined;
  stripe.previousRoot &&= decision.root;
  if (decision.root && stripe.rootSince === undefined) {
    stripe.rootSince = e.now;
    stripe.cdnFlowed = false;
  } else if (!decision.root) {
    stripe.rootSince = undefined;
  }
  resubscribe(e, track, number);
  tellChildren(e, track, number);
}

function factsOf(e: RelayEngine, track: Track, number: number): Facts {
  const stripe = track.stripe(number);
  const candidate = (source: Source | undefined) => {
    const peer = peerOf(source);
    return peer === undefined ? undefined : candidateOf(e, stripe, peer);
  };
  const standby = candidate(stripe.assigned.standby);
  return {
    assigned: stripe.assigned.source,
    source: candidate(stripe.assigned.source),
    standby: standby && {
      ...standby,
      flowed: standby.flowed || isSettled(e, track, number, standby.peer),
    },
    previous: stripe.previous === undefined ? undefined : candidateOf(e, stripe, stripe.previous),
    previousRoot: stripe.previousRoot,
    cdnFlowed: stripe.cdnFlowed,
  };
}

function isSettled(e: RelayEngine, track: Track, number: number, peer: string): boolean {
  const since = track.stripe(number).subscribed.get(peer)?.since;
  const misses = (key: ObjectKey) => (e.ring.get(key)?.share(number).missing ?? 0) > 0;
  const idle = track.index !== undefined && !e.ring.wantedOf(track.index).some(misses);
  return since !== undefined && e.now >= since + SETTLING && idle && !track.isOverdue(e.now);
}

function candidateOf(e: RelayEngine, stripe: Stripe, peer: string): Candidate {
  return {
    peer,
    condition: conditionOf(e, stripe, peer),
    repairing: stripe.repairingPeers.has(peer),
    flowed: stripe.subscribed.get(peer)?.flowed ?? false,
  };
}

function conditionOf(e: RelayEngine, stripe: Stripe, peer: string): Condition {
  const repairs = stripe.repairingPeers.get(peer);
  const link = e.links.get(peer);
  if (stripe.refused.has(peer) || (repairs && e.now >= repairs.until) || !link) return "gone";
  const opening = e.now < Math.max(link.since, stripe.assignedAt) + OPENING_PATIENCE;
  if (link.phase === "up") {
    if (!link.greeted) return opening ? "opening" : "gone";
    return ({ alive: "usable", silent: "silent", dead: "gone" } as const)[link.health(e.now)];
  }
  const first = link.phase === "opening" && !link.wasUp && link.attempts === 0;
  return first && opening ? "opening" : "gone";
}

function resubscribe(e: RelayEngine, track: Track, number: number): void {
  const { index } = track;
  if (index === undefined) return;
  const stripe = track.stripe(number);
  const wanted = stripe.decision.subscribe;
  for (const [peer] of inOrder(stripe.subscribed)) {
    if (wanted.includes(peer)) continue;
    stripe.subscribed.delete(peer);
    sendUnsubscribe(e, peer, index, number);
  }
  for (const peer of wanted)
    if (e.links.get(peer)?.isReady && !stripe.subscribed.has(peer))
      subscribe(e, track, index, number, peer);
}

function dropStale(e: RelayEngine, track: Track): void {
  if (track.index === undefined) return;
  const stale = track.stale;
  track.stale = [];
  for (const { peer, stripe } of stale)
    if (!track.stripes[stripe]?.subscribed.has(peer)) sendUnsubscribe(e, peer, track.index, stripe);
}

/** Takes a subscription up again from the first chunk that is missing: no more is known of the source than before. */
export function subscribeAnew(
  e: RelayEngine,
  track: Track,
  index: number,
  number: number,
  peer: string,
): void {
  const { subscribed } = track.stripe(number);
  const flowed = subscribed.get(peer)?.flowed ?? false;
  subscribe(e, track, index, number, peer);
  const anew = subscribed.get(peer);
  if (anew) anew.flowed = flowed;
}

function subscribe(
  e: RelayEngine,
  track: Track,
  index: number,
  number: number,
  peer: string,
): void {
  const cursor = cursorOf(e, track, index, number);
  const stripe = track.stripe(number);
  stripe.subscribed.set(peer, {
    since: e.now,
    resumed: e.now,
    from: cursor?.object,
    stated: undefined,
    flowed: false,
  });
  stripe.begun = e.now;
  const stripes = track.stripes.length;
  send(e, peer, { type: "subscribe", track: index, stripe: number, stripes, cursor });
  if (!cursor) return;
  let cancels = 0;
  for (const object of e.ring.ofTrack(index)) {
    if (compareKeys(object.key, cursor.object) < 0) continue;
    for (const [first, count] of object.hadRuns(number)) {
      send(e, peer, { type: "cancel", object: object.key, first, count });
      cancels += 1;
    }
    if (cancels >= MAX_CANCELS) return;
  }
}

/** After a bypass: goes on behind what was played meanwhile. */
export function moveOn(e: RelayEngine, track: Track): void {
  subscribeAgain(e, track, () => true);
}

/** With several stripes, all begin at the same place once it is known. */
export function align(e: RelayEngine, track: Track): void {
  if (track.stripes.length > 1)
    subscribeAgain(e, track, (subscribed) => subscribed.from === undefined);
}

function subscribeAgain(
  e: RelayEngine,
  track: Track,
  which: (subscribed: Subscribed) => boolean,
): void {
  const { index } = track;
  if (index === undefined) return;
  for (const [number, stripe] of track.stripes.entries())
    for (const [peer] of inOrder(stripe.subscribed).filter(([, subscribed]) => which(subscribed)))
      subscribe(e, track, index, number, peer);
}

/** Right behind what of the stripe is here or is being fetched. */
function cursorOf(e: RelayEngine, track: Track, index: number, stripe: number): Cursor | undefined {
  if (!track.start) return undefined;
  for (const key of e.ring.wantedOf(index)) {
    const object = e.ring.get(key);
    if (!object || compareKeys(key, track.start) < 0 || object.shareIsRead(stripe)) continue;
    const chunk = object.firstMissing(stripe);
    if (chunk !== undefined) return { object: key, chunk };
  }
  const { newest } = track;
  return newest && { object: segmentKey(index, newest.epoch, newest.sequence + 1n), chunk: 0 };
}

export function sendUnsubscribe(e: RelayEngine, peer: string, track: number, stripe: number): void {
  send(e, peer, { type: "unsubscribe", track, stripe });
}

function tellChildren(e: RelayEngine, track: Track, number: number): void {
  const stripe = track.stripe(number);
  const { repairing } = stripe.decision;
  if (track.index === undefined || repairing === stripe.toldRepairing) return;
  stripe.toldRepairing = repairing;
  for (const [peer, link] of inOrder(e.links)) {
    if (!link.isReady) continue;
    for (const s of [...link.downstream.subscriptions])
      if (s.track === track.index && (s.stripe === number || s.stripes !== track.stripes.length))
        sendUpstream(e, peer, track.index, s.stripe, repairing);
  }
}

export function sendUpstream(
  e: RelayEngine,
  peer: string,
  track: number,
  stripe: number,
  repairing: boolean,
): void {
  const expectedMs = repairing ? EXPECTED_REPAIR : 0;
  send(e, peer, { type: "upstream", track, stripe, repairing, expectedMs });
}

/** Opens the signer's feed while statements do not come from a parent. */
export function tendFeed(e: RelayEngine): void {
  const needs = (track: Track) => {
    const decisions = track.stripes.map((stripe) => stripe.decision);
    const patient = decisions.every((decision) => decision.patient);
    const unheard = track.isOverdue(e.now) || decisions.every((decision) => !decision.flowing);
    return decisions.some((decision) => decision.root) || track.bypass || (unheard && !patient);
  };
  const wanted = e.incarnation !== undefined && (e.tracks.length === 0 || e.tracks.some(needs));
  if (wanted === e.feed.wanted) return;
  Object.assign(e.feed, { wanted, open: false, caughtUp: false });
  if (!wanted) e.spare = [];
  e.commands.push({ type: wanted ? "open_feed" : "close_feed" });
}
