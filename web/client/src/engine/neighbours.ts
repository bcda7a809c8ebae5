/** What neighbours say besides data: a child subscribes, a source repairs its own or does not have an object. */
import type { ObjectKey } from "../media/object.js";
import type { Subscribe } from "./frame.js";
import { failLink } from "./links.js";
import { sendUpstream } from "./reflex.js";
import { childName, type RelayEngine } from "./relay_engine.js";
import { unite } from "./repair.js";
import { sendStatement } from "./serving.js";
import type { Track } from "./track.js";
import { peerOf } from "./types.js";

/** How long a peer is not taken as a source that takes the same track from here. */
const REFUSAL = 10_000;

export function onSubscribe(e: RelayEngine, peer: string, subscribe: Subscribe): void {
  const track = e.trackOf(subscribe.track);
  const place = track?.log.placeOf(subscribe.cursor?.object) ?? 0;
  const link = e.links.get(peer);
  if (!link) return;
  if (!link.downstream.subscribe(subscribe, place)) {
    failLink(e, peer, "invalid", "too many subscriptions");
    return;
  }
  if (!track) return;
  if (track.header) sendStatement(e, peer, track.header);
  if (track.stripes[subscribe.stripe]?.toldRepairing)
    sendUpstream(e, peer, subscribe.track, subscribe.stripe, true);
  breakCircle(e, track, peer, subscribe);
}

/**
 * Two peers that take a stripe from each other get it from nobody: one of them must look elsewhere. It is the one
 * that was not assigned to do so; if neither was, the lower id.
 */
function breakCircle(e: RelayEngine, track: Track, peer: string, subscribe: Subscribe): void {
  const stripe = track.stripes[subscribe.stripe];
  if (!stripe || peerOf(stripe.assigned.source) === peer) return;
  if (track.stripes.length !== subscribe.stripes || !stripe.subscribed.has(peer)) return;
  const assignedChild = e.activeChildren.has(childName(track.name, subscribe.stripe, peer));
  if (assignedChild || e.config.peer < peer) {
    stripe.refused.set(peer, e.now + REFUSAL);
    e.dirty = true;
  }
}

/** A peer repairs its source of a stripe, and hopes to be done in time; or it has a source again. */
export function onUpstream(
  e: RelayEngine,
  peer: string,
  index: number,
  number: number,
  expected: number | undefined,
): void {
  const track = e.trackOf(index);
  const stripe = track?.stripes[number];
  if (!stripe) return;
  const known = stripe.repairingPeers;
  if (expected !== undefined) {
    if (!known.has(peer)) known.set(peer, { since: e.now, until: e.now + expected });
  } else if (known.delete(peer)) {
    const subscribed = stripe.subscribed.get(peer);
    if (subscribed) {
      subscribed.resumed = e.now;
      stripe.begun = e.now;
      unite(e, track, number);
    }
  }
  e.dirty = true;
}

export function onUnavailable(e: RelayEngine, peer: string, key: ObjectKey): void {
  const track = e.trackOf(key.track);
  const object = e.ring.get(key);
  if (!track || object?.status !== "wanted") return;
  for (const [number, stripe] of track.stripes.entries()) {
    // Whoever was asked does not have it: somebody else is asked at once.
    const share = object.share(number);
    if (share.refusedBy.includes(peer)) continue;
    if (track.stripes.length === 1 || stripe.isHadFrom(peer))
      share.refusedBy = [peer, ...share.refusedBy].slice(0, 2);
  }
  for (const number of track.stripes.keys())
    if (object.share(number).asked?.peer === peer) unite(e, track, number);
  e.dirty = true;
}
