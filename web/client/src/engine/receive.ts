/** What neighbours send: frames in order, chunks verified before anything else is done with them. */
import { compareKeys, type ObjectKey } from "../media/object.js";
import { chunkFault, chunkLength } from "../media/statement.js";
import { cancelFetch } from "./fetching.js";
import { decodeFrame, FrameError, type Data, type Frame } from "./frame.js";
import { failLink, onBye, onHello, send } from "./links.js";
import { onSubscribe, onUnavailable, onUpstream } from "./neighbours.js";
import type { RelayEngine } from "./relay_engine.js";
import { asksForItself } from "./repair.js";
import { judgeSource } from "./reports.js";
import { onStatement, startAt } from "./statements.js";
import type { Track } from "./track.js";
import { peerOf } from "./types.js";

/** How long a peer that repairs its source is waited for at the most, whatever it hopes. */
const MAX_REPAIR = 4_000;

/** From where a chunk came. */
export interface Via {
  readonly how: "parent" | "standby" | "cdn";
  readonly peer?: string;
}

export const FROM_CDN: Via = { how: "cdn" };

export function onFrame(e: RelayEngine, peer: string, bytes: Uint8Array): void {
  const link = e.links.get(peer);
  if (link?.phase !== "up") return;
  if (link.health(e.now) !== "alive") e.dirty = true;
  link.liveness.onBytes(e.now);
  let frame: Frame;
  try {
    frame = decodeFrame(bytes);
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    failLink(e, peer, "invalid", error.message);
    return;
  }
  if (frame.type === "hello" && !link.greeted) {
    onHello(e, peer, frame);
  } else if (frame.type === "bye") {
    onBye(e, peer, frame.reason);
  } else if (!link.greeted) {
    failLink(e, peer, "invalid", "no Hello first");
  } else if (frame.type === "data") {
    onData(e, peer, frame);
  } else {
    const allowed = frame.type === "statement" ? link.statementAllowance : link.controlAllowance;
    if (allowed.tryTake(1, e.now)) onControl(e, peer, frame);
    else failLink(e, peer, "invalid", "too many frames");
  }
}

function onControl(e: RelayEngine, peer: string, frame: Frame): void {
  const link = e.links.get(peer);
  if (!link) return;
  switch (frame.type) {
    case "statement": {
      const encoded = link.assembleStatement(frame);
      if (encoded === "mixed") failLink(e, peer, "invalid", "parts of statements mixed up");
      else if (encoded) onStatement(e, encoded, peer);
      break;
    }
    case "subscribe":
      onSubscribe(e, peer, frame);
      break;
    case "unsubscribe":
      link.downstream.unsubscribe(frame.track, frame.stripe);
      break;
    case "cancel":
      link.cancel(frame.object, frame.first, frame.count);
      break;
    case "request":
      {
        const room = link.downstream.request(frame.object, frame.ranges, e.now);
        if (!room || asksForItself(e, frame.object, frame.ranges))
          send(e, peer, { type: "unavailable", object: frame.object });
      }
      break;
    case "unavailable":
      onUnavailable(e, peer, frame.object);
      break;
    case "upstream": {
      const expected = Math.min(frame.expectedMs, MAX_REPAIR);
      onUpstream(e, peer, frame.track, frame.stripe, frame.repairing ? expected : undefined);
      break;
    }
    case "hello":
    case "data":
    case "bye":
      failLink(e, peer, "invalid", "a second Hello");
  }
}

function onData(e: RelayEngine, peer: string, data: Data): void {
  const { object: key, chunk: index, offset, bytes } = data;
  e.counters.bytesFromPeers += bytes.length;
  const track = e.trackOf(key.track);
  if (!track) {
    onUnexpected(e, peer, bytes.length);
    return;
  }
  const number = track.stripeOf(index);
  const via = viaPeer(track, number, peer);
  if (via.how === "standby") e.counters.bytesFromStandby += bytes.length;
  const subscribed = track.stripe(number).subscribed.get(peer);
  if (subscribed && !subscribed.flowed) {
    subscribed.flowed = true;
    e.dirty = true;
  }
  startFromData(e, track, key);
  const object = e.ring.get(key);
  if (!object) {
    onUnexpected(e, peer, bytes.length);
    return;
  }
  const whole = chunkLength(object.descriptor, index);
  if (whole === undefined) {
    failLink(e, peer, "invalid", "a chunk that its object does not have");
  } else if (offset + bytes.length > whole) {
    failLink(e, peer, "invalid", "a fragment beyond its chunk");
  } else if (object.status !== "wanted" || object.chunk(index)) {
    e.counters.duplicateBytes += bytes.length;
    onUnexpected(e, peer, bytes.length);
  } else {
    const assembled = e.links.get(peer)?.assembleChunk(key, index, offset, whole, bytes);
    if (assembled) onChunk(e, peer, track, key, index, assembled, via);
  }
}

/** A peer that could ask the feed for nothing begins where its parent begins. */
function startFromData(e: RelayEngine, track: Track, key: ObjectKey): void {
  if (track.start) return;
  const start = key.kind === "segment" ? key : track.newest;
  if (start && e.ring.get(start)) startAt(e, track, start);
}

function viaPeer(track: Track, number: number, peer: string): Via {
  const { source, standby } = track.stripe(number).assigned;
  return { how: peerOf(standby) === peer && peerOf(source) !== peer ? "standby" : "parent", peer };
}

/** Late chunks after a Cancel are no offence, a stream of them is. */
function onUnexpected(e: RelayEngine, peer: string, length: number): void {
  const link = e.links.get(peer);
  if (link && !link.unexpectedAllowance.tryTake(length, e.now))
    failLink(e, peer, "invalid", "sends what nobody asked for");
}

function onChunk(
  e: RelayEngine,
  peer: string,
  track: Track,
  key: ObjectKey,
  index: number,
  bytes: Uint8Array,
  via: Via,
): void {
  const object = e.ring.get(key);
  if (!object) return;
  const fault = chunkFault(object.descriptor, index, bytes);
  if (fault !== undefined) {
    e.counters.corruptChunks += 1;
    failLink(e, peer, "corrupt", fault);
    return;
  }
  track.treeFlowed = true;
  accept(e, track, key, index, bytes, via);
}

/** Stores a verified chunk, and passes it on. */
export function accept(
  e: RelayEngine,
  track: Track,
  key: ObjectKey,
  index: number,
  bytes: Uint8Array,
  via: Via,
): void {
  const object = e.ring.get(key);
  if (!object || !e.ring.store(key, index, bytes)) {
    e.counters.duplicateBytes += bytes.length;
    return;
  }
  const number = object.stripeOf(index);
  const share = object.share(number);
  share.lastChunk = e.now;
  const from = ({ parent: "parentBytes", standby: "standbyBytes", cdn: "cdnBytes" } as const)[
    via.how
  ];
  share.from[from] += bytes.length;
  const complete = object.missing === 0;
  const stripe = track.stripe(number);
  stripe.onProgress(object.arrived, e.now);
  if (via.how === "cdn" && stripe.rootSince !== undefined && !stripe.cdnFlowed) {
    stripe.cdnFlowed = true;
    e.dirty = true;
  }
  if (!object.publishedUnverified) e.publish({ type: "chunk", object: key, index, bytes });
  cancelElsewhere(e, track, key, index, via);
  if (share.missing === 0) completeShare(e, track, number, key);
  if (complete) completeObject(e, track, key);
}

/** Tells whoever else would send a chunk that it is here. */
function cancelElsewhere(
  e: RelayEngine,
  track: Track,
  object: ObjectKey,
  first: number,
  via: Via,
): void {
  const number = track.stripeOf(first);
  const { subscribed } = track.stripe(number);
  // Two that push the same: one of them is about to be left.
  const pushed = via.peer !== undefined && subscribed.has(via.peer);
  const others = pushed ? [] : [...subscribed.keys()].sort();
  const asked = e.ring.get(object)?.share(number).asked?.peer;
  if (asked !== undefined && asked !== via.peer && !others.includes(asked)) others.push(asked);
  for (const peer of others) send(e, peer, { type: "cancel", object, first, count: 1 });
}

/** A stripe's share of an object is whole. */
function completeShare(e: RelayEngine, track: Track, number: number, key: ObjectKey): void {
  const object = e.ring.get(key);
  if (!object || key.kind !== "segment") return;
  for (const subscribed of track.stripe(number).subscribed.values())
    subscribed.flowed ||=
      subscribed.stated !== undefined && compareKeys(subscribed.stated, key) >= 0;
  if (object.playerWaits === undefined)
    judgeSource(e, track, number, object.share(number).from, object.arrived);
  e.dirty = true;
}

/** An object is whole. */
export function completeObject(e: RelayEngine, track: Track, key: ObjectKey): void {
  const object = e.ring.get(key);
  if (!object) return;
  object.playerWaits = undefined;
  e.counters.objectsCompleted += 1;
  for (const id of object.takeReadings()) cancelFetch(e, id);
  if (!object.publishedUnverified)
    e.publish({ type: "complete", object: key, at: e.now, from: object.from() });
  if (key.kind === "segment") track.playout.makeAvailable(key, e.now);
  e.dirty = true;
}
