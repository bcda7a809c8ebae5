/** The orchestrator's word: sessions and assignments. */
import type { TrustedKeys } from "../media/statement.js";
import { cancelFetch } from "./fetching.js";
import { MAX_STRIPES } from "./frame.js";
import { TokenBucket } from "./pacer.js";
import { sendUnsubscribe } from "./reflex.js";
import { childName, type RelayEngine } from "./relay_engine.js";
import { fragmentSize } from "./serving.js";
import { takeSpare } from "./statements.js";
import { Stripe, Track, type Assigned } from "./track.js";
import { compareGenerations, peerOf, type Assignment, type TrackAssignment } from "./types.js";

/** The share of the upload budget that the pacer gives out. */
const PACED_TENTHS = 9;
/** How much of the uplink's time may be sent at once: timers are good to some milliseconds. */
const PACED_AT_ONCE = 10;
const NOWHERE: Assigned = { source: undefined, standby: undefined, makeBeforeBreak: false };

export function onWelcome(e: RelayEngine, incarnation: bigint, keys: TrustedKeys): void {
  if (e.incarnation !== incarnation) {
    const known = e.incarnation !== undefined;
    e.incarnation = incarnation;
    e.generation = { incarnation: 0n, term: 0n, index: 0n };
    if (known && [...keys.keys()].sort().join() !== [...e.keys.keys()].sort().join())
      forgetMedia(e);
  }
  e.keys = keys;
  // A new session knows nothing of what was reported to the one before.
  for (const track of e.tracks) for (const stripe of track.stripes) stripe.reported = undefined;
  e.dirty = true;
}

function forgetMedia(e: RelayEngine): void {
  const assigned = e.tracks.map((track) => ({
    name: track.name,
    stripes: track.stripes.map((stripe) => stripe.assigned),
  }));
  for (const track of [...e.tracks]) dropTrack(e, track);
  e.master = undefined;
  for (const { name, stripes } of assigned) addTrack(e, name, stripes);
}

export function onAssignment(e: RelayEngine, assignment: Assignment): void {
  const { generation } = assignment;
  const order = compareGenerations(generation, e.generation);
  if (e.incarnation !== generation.incarnation || order < 0) return;
  if (order > 0) {
    e.generation = generation;
    adopt(e, assignment);
  }
  e.commands.push({ type: "acknowledge", generation });
  e.dirty = true;
}

function adopt(e: RelayEngine, assignment: Assignment): void {
  setUpload(e, assignment.uploadBps);
  e.lease.grant(assignment.cdnLease, e.now);
  e.children = new Set(assignment.children.map((child) => child.peer));
  e.activeChildren = new Map(
    assignment.children
      .filter((child) => !child.standby)
      .map((child) => [childName(child.track, child.stripe, child.peer), child.peer]),
  );
  const wanted = byTrack(assignment.tracks);
  for (const track of [...e.tracks]) if (!wanted.has(track.name)) dropTrack(e, track);
  for (const [name, stripes] of [...wanted].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const track = e.tracks.find((known) => known.name === name);
    if (track) reassign(e, track, stripes);
    else addTrack(e, name, stripes);
  }
}

function setUpload(e: RelayEngine, uploadBps: number): void {
  const rate = Math.floor((uploadBps * PACED_TENTHS) / 10);
  e.fragment = fragmentSize(uploadBps);
  const burst = Math.max(Math.floor((rate * PACED_AT_ONCE) / 8_000), e.fragment);
  if (e.pacer.rateBps === 0) e.pacer = new TokenBucket(rate, burst, e.now);
  else e.pacer.configure(rate, burst, e.now);
}

function reassign(e: RelayEngine, track: Track, assigned: readonly Assigned[]): void {
  if (track.stripes.length !== assigned.length) {
    restripe(e, track, assigned);
    return;
  }
  for (const [number, one] of assigned.entries()) track.stripe(number).reassign(one, e.now);
}

function restripe(e: RelayEngine, track: Track, assigned: readonly Assigned[]): void {
  const root = track.isRoot;
  const before = track.stripes;
  track.stripes = assigned.map((one, number) => {
    const stripe = new Stripe(one, e.now);
    const next = peerOf(one.source);
    const active = peerOf(before[number % before.length]?.decision.active);
    if (one.makeBeforeBreak && active !== next) stripe.previous = active;
    stripe.previousRoot = root && next !== undefined;
    if (root) [stripe.rootSince, stripe.cdnFlowed] = [e.now, true];
    return stripe;
  });
  for (const [number, stripe] of before.entries())
    track.stale.push(
      ...[...stripe.subscribed.keys()].sort().map((peer) => ({ peer, stripe: number })),
    );
  if (track.index !== undefined) e.ring.restripe(track.index, track.stripes.length);
}

function addTrack(e: RelayEngine, name: string, stripes: readonly Assigned[]): void {
  const track = new Track(name, stripes, e.now);
  if (e.master?.statement.type === "master") track.resolve(e.master.statement);
  e.tracks.push(track);
  e.tracks.sort((a, b) => (a.name < b.name ? -1 : 1));
  takeSpare(e);
}

function dropTrack(e: RelayEngine, track: Track): void {
  e.tracks = e.tracks.filter((known) => known !== track);
  // Its statements are forgotten, and must be taken again if the track comes back.
  e.verified.clear();
  const { index } = track;
  if (index === undefined) return;
  for (const [number, stripe] of track.stripes.entries())
    for (const peer of [...stripe.subscribed.keys()].sort())
      sendUnsubscribe(e, peer, index, number);
  for (const [id, fetch] of [...e.fetches]) if (fetch.object.track === index) cancelFetch(e, id);
  for (const link of e.links.values()) link.downstream.dropTrack(index);
  for (const object of e.ring.forgetTrack(index)) e.publish({ type: "evicted", object });
}

function byTrack(assignments: readonly TrackAssignment[]): Map<string, Assigned[]> {
  const tracks = new Map<string, Assigned[]>();
  for (const { track, stripes } of assignments) {
    const known = tracks.get(track) ?? [];
    const count = Math.min(Math.max(stripes, 1), MAX_STRIPES);
    while (known.length < count) known.push(NOWHERE);
    tracks.set(track, known);
  }
  for (const { track, stripe, source, standby, makeBeforeBreak } of assignments) {
    const stripes = tracks.get(track);
    if (stripes && stripe < stripes.length) stripes[stripe] = { source, standby, makeBeforeBreak };
  }
  return tracks;
}
