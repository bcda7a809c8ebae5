/** What is signed: headers and descriptors, from the feed and from peers. */
import { compareKeys, type ObjectKey } from "../media/object.js";
import {
  decodeSigned,
  hashOf,
  hex,
  initOf,
  StatementError,
  type Descriptor,
  type SignedStatement,
} from "../media/statement.js";
import { setBypass } from "./bypass.js";
import { absorbUnsigned, onAnnounce } from "./fetching.js";
import { failLink } from "./links.js";
import { completeObject } from "./receive.js";
import { align, moveOn } from "./reflex.js";
import type { RelayEngine } from "./relay_engine.js";
import { sendStatement } from "./serving.js";
import type { Track } from "./track.js";
import { inOrder, type FeedEvent } from "./types.js";

const MAX_VERIFIED = 4_096;
const MAX_SPARE = 1_024;
/** How many segments before the first one that is taken are listed, for players that want to begin earlier. */
const LISTED_BEFORE = 2;

export function onFeed(e: RelayEngine, event: FeedEvent): void {
  e.dirty = true;
  switch (event.type) {
    case "opened":
      Object.assign(e.feed, { open: true, caughtUp: false });
      e.spare = [];
      break;
    case "lost":
      Object.assign(e.feed, { open: false, caughtUp: false });
      break;
    case "statement":
      onStatement(e, event.encoded, undefined);
      break;
    case "announce":
      onAnnounce(e, event.object, event.uri, event.byteRange);
      break;
    case "caught_up":
      e.feed.caughtUp = true;
      for (const track of e.tracks) startAtNewest(e, track);
  }
}

export function onStatement(e: RelayEngine, encoded: Uint8Array, from: string | undefined): void {
  const hash = hex(hashOf(encoded));
  if (e.verified.has(hash)) {
    hearOf(e, e.verified.get(hash), from);
    return;
  }
  let signed: SignedStatement;
  try {
    signed = decodeSigned(encoded, e.keys);
  } catch (error) {
    if (!(error instanceof StatementError)) throw error;
    onBadStatement(e, error, from);
    return;
  }
  const { statement } = signed;
  const index =
    statement.type === "object"
      ? statement.key.track
      : statement.type === "track"
        ? statement.track
        : undefined;
  const about = statement.type === "object" ? statement.key : undefined;
  if (index === undefined || e.trackOf(index)) remember(e, hash, about);
  takeStatement(e, signed);
  hearOf(e, about, from);
}

function remember(e: RelayEngine, hash: string, about: ObjectKey | undefined): void {
  if (e.verified.size === MAX_VERIFIED)
    for (const oldest of e.verified.keys()) {
      e.verified.delete(oldest);
      break;
    }
  e.verified.set(hash, about);
}

function hearOf(e: RelayEngine, key: ObjectKey | undefined, peer: string | undefined): void {
  if (!key || peer === undefined) return;
  const object = e.ring.get(key);
  for (const [number, stripe] of e.trackOf(key.track)?.stripes.entries() ?? []) {
    const subscribed = stripe.subscribed.get(peer);
    if (!subscribed) continue;
    if (!subscribed.stated || compareKeys(key, subscribed.stated) > 0) subscribed.stated = key;
    const lacksNothing =
      object?.status === "complete" ||
      (key.kind === "segment" && object?.share(number).missing === 0);
    if (object && lacksNothing && !subscribed.flowed) {
      subscribed.flowed = true;
      e.dirty = true;
    }
  }
}

function onBadStatement(e: RelayEngine, error: StatementError, from: string | undefined): void {
  // Keys overlap when they change: a neighbour may be ahead, and is not guilty of anything.
  if (error.fault === "untrusted_key") return;
  e.counters.badStatements += 1;
  // What a trusted key signed and is no statement is the signer's fault, or a newer version.
  if (from === undefined || error.fault === "invalid") return;
  failLink(e, from, error.fault === "signature" ? "corrupt" : "invalid", error.message);
}

function takeStatement(e: RelayEngine, signed: SignedStatement): void {
  e.dirty = true;
  const { statement } = signed;
  if (statement.type === "master") {
    takeMaster(e, signed);
    return;
  }
  const track = e.trackOf(statement.type === "track" ? statement.track : statement.key.track);
  if (!track) keepSpare(e, signed);
  else if (statement.type === "track") takeHeader(e, track, signed);
  else takeDescriptor(e, track, statement, signed);
}

function takeMaster(e: RelayEngine, signed: SignedStatement): void {
  const [known, master] = [e.master?.statement, signed.statement];
  if (master.type !== "master" || (known?.type === "master" && known.revision >= master.revision))
    return;
  e.publish({ type: "header", header: master });
  e.master = signed;
  for (const track of e.tracks) track.resolve(master);
  // Whose Hello is still on its way gets it too: this end has said its own already.
  for (const [peer, link] of inOrder(e.links))
    if (link.phase === "up") sendStatement(e, peer, signed);
  takeSpare(e);
}

function keepSpare(e: RelayEngine, signed: SignedStatement): void {
  if (e.spare.length === MAX_SPARE) e.spare.shift();
  e.spare.push(signed);
}

export function takeSpare(e: RelayEngine): void {
  const spare = e.spare;
  e.spare = [];
  for (const signed of spare) takeStatement(e, signed);
  if (e.feed.caughtUp) for (const track of e.tracks) startAtNewest(e, track);
}

function takeHeader(e: RelayEngine, track: Track, signed: SignedStatement): void {
  const [known, header] = [track.trackHeader, signed.statement];
  if (header.type !== "track") return;
  const newer =
    !known ||
    header.epoch > known.epoch ||
    (header.epoch === known.epoch &&
      (header.fromSequence > known.fromSequence ||
        (header.fromSequence === known.fromSequence &&
          header.endSequence !== undefined &&
          known.endSequence === undefined)));
  if (!newer) return;
  track.header = signed;
  track.log.push(signed);
  e.publish({ type: "header", header });
}

function takeDescriptor(
  e: RelayEngine,
  track: Track,
  descriptor: Descriptor,
  signed: SignedStatement,
): void {
  const { key } = descriptor;
  const inserted = e.ring.insert(descriptor, signed, track.stripes.length, e.now);
  if (inserted === "conflict") e.counters.conflictingStatements += 1;
  if (inserted !== "new") return;
  const bypassed = track.bypass;
  track.log.push(signed);
  if (key.kind === "segment" && (!track.signed || compareKeys(key, track.signed) > 0)) {
    track.signed = key;
    if (!track.newest || compareKeys(key, track.newest) > 0) track.newest = key;
    setBypass(e, track, false);
    track.rhythm = { at: e.now, duration: descriptor.durationMs };
  }
  if (track.isWanted(key)) admit(e, track, key);
  // The channel's very first object comes after the end of the empty windows.
  else if (e.feed.caughtUp) startAtNewest(e, track);
  if (track.unsigned.get(key)) {
    begin(e, track, key);
    absorbUnsigned(e, track, key);
  }
  if (bypassed && !track.bypass) moveOn(e, track);
}

/** An object that the player will want: it is listed and taken, with the init section that it needs. */
function admit(e: RelayEngine, track: Track, key: ObjectKey): void {
  const object = e.ring.get(key);
  if (!object) return;
  const { descriptor } = object;
  e.publish({ type: "listed", descriptor });
  if (key.kind === "segment") track.playout.append(key, descriptor.durationMs);
  begin(e, track, key);
  const init = initOf(descriptor);
  if (init) begin(e, track, init);
}

function begin(e: RelayEngine, track: Track, key: ObjectKey): void {
  if (e.ring.want(key) && e.ring.get(key)?.status === "complete") completeObject(e, track, key);
}

export function startAtNewest(e: RelayEngine, track: Track): void {
  const { newest } = track;
  if (!newest || track.start) return;
  startAt(e, track, newest);
  const object = e.ring.get(newest);
  const init = object && initOf(object.descriptor);
  // The picture waits for nobody: what it begins with is fetched at once, unless it flows.
  for (const one of [object, init && e.ring.get(init)]) if (one) one.playerWaits = e.now;
}

export function startAt(e: RelayEngine, track: Track, start: ObjectKey): void {
  track.start = start;
  const segments = e.ring.ofTrack(start.track).filter((object) => object.key.kind === "segment");
  const older = segments.filter((object) => compareKeys(object.key, start) < 0).length;
  for (const object of segments.slice(Math.max(0, older - LISTED_BEFORE))) {
    const init = initOf(object.descriptor);
    const held = init && e.ring.get(init);
    if (held) e.publish({ type: "listed", descriptor: held.descriptor });
    if (compareKeys(object.key, start) >= 0) admit(e, track, object.key);
    else e.publish({ type: "listed", descriptor: object.descriptor });
  }
  track.playout.start(track.target, e.now);
  align(e, track);
}

/** The player reads an object that was listed: if it is not held, it is fetched, verified, and published. */
export function onPlayerWants(e: RelayEngine, key: ObjectKey): void {
  const track = e.trackOf(key.track);
  if (!track) return;
  const object = e.ring.get(key);
  const init = object && initOf(object.descriptor);
  for (const one of [init && e.ring.get(init), object]) {
    if (!one) continue;
    // What is being received comes in time for the player by itself.
    const absent = one.status === "absent";
    begin(e, track, one.key);
    if (absent) one.playerWaits ??= e.now;
  }
  e.dirty = true;
}
