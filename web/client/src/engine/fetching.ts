/** Chunks from the CDN: verified where a descriptor vouches for them, kept back where none does yet. */
import { compareKeys, type ByteRange, type ObjectKey } from "../media/object.js";
import { chunkCount, chunkFault, hashOf, resourceRange } from "../media/statement.js";
import { Body } from "./cdn.js";
import { accept, FROM_CDN } from "./receive.js";
import type { RelayEngine } from "./relay_engine.js";
import { unsignedAt, type Track, type Unsigned } from "./track.js";
import type { FetchUpdate } from "./types.js";

const MAX_FETCHES = 6;
const FETCH_SILENCE = 3_000;
const RETRY = { first: 200, most: 2_000 };

export function canFetch(e: RelayEngine): boolean {
  return e.fetches.size < MAX_FETCHES;
}

export function fetchChunks(e: RelayEngine, key: ObjectKey, first: number, count: number): void {
  const object = e.ring.get(key);
  if (!object) return;
  const { descriptor } = object;
  const all = first === 0 && count >= chunkCount(descriptor);
  const range = all ? descriptor.byteRange : resourceRange(descriptor, first, count);
  const body = Body.run(descriptor.byteRange, descriptor.length, first, count);
  object.beginReading(fetch(e, key, descriptor.uri, range, "verified", body), first, count);
}

function fetchUnsigned(e: RelayEngine, key: ObjectKey, unsigned: Unsigned): void {
  const { uri, byteRange } = unsigned;
  unsigned.chunks = [];
  unsigned.fetch = fetch(e, key, uri, byteRange, "unsigned", Body.whole(byteRange));
}

function fetch(
  e: RelayEngine,
  object: ObjectKey,
  uri: string,
  range: ByteRange | undefined,
  purpose: "verified" | "unsigned",
  body: Body,
): number {
  e.nextFetch += 1;
  const id = e.nextFetch;
  e.fetches.set(id, { object, purpose, body, ranged: range !== undefined, active: e.now });
  e.counters.cdnRequests += 1;
  e.commands.push({ type: "fetch", id, object, uri, range });
  return id;
}

/** A root begins to read what is announced, and relays none of it before it is signed. */
export function onAnnounce(
  e: RelayEngine,
  key: ObjectKey,
  uri: string,
  range: ByteRange | undefined,
): void {
  const track = e.trackOf(key.track);
  if (!track) return;
  const known = e.ring.get(key) ?? track.unsigned.get(key);
  const behind = track.start !== undefined && compareKeys(key, track.start) < 0;
  // Where the chunks of one stripe end is not known before the object's length is.
  if (!track.isRoot || known || behind || !canFetch(e)) return;
  const unsigned = unsignedAt(uri, range);
  track.unsigned.set(key, unsigned);
  fetchUnsigned(e, key, unsigned);
  boundUnsigned(e, track);
}

export function onFetch(e: RelayEngine, id: number, update: FetchUpdate): void {
  const found = e.fetches.get(id);
  if (!found) return;
  found.active = e.now;
  switch (update.type) {
    case "started":
      found.body.start(update.partial);
      onStarted(e, id, update.partial);
      break;
    case "body":
      onBody(e, id, update.bytes);
      break;
    case "end":
      onEnd(e, id);
      break;
    case "failed":
      onFailed(e, id);
      break;
  }
}

function onStarted(e: RelayEngine, id: number, partial: boolean): void {
  const found = e.fetches.get(id);
  if (!found) return;
  if (found.ranged) e.ignoresRanges = !partial;
  if (partial || found.purpose === "unsigned") return;
  for (const other of e.ring.get(found.object)?.readsAll(id) ?? []) cancelFetch(e, other);
}

type IndexedChunk = readonly [index: number, bytes: Uint8Array];

function onBody(e: RelayEngine, id: number, bytes: Uint8Array): void {
  e.counters.bytesFromCdn += bytes.length;
  const chunks: IndexedChunk[] = [];
  const fits = e.fetches.get(id)?.body.push(bytes, (index, chunk) => chunks.push([index, chunk]));
  if (fits) {
    takeChunks(e, id, chunks);
  } else {
    e.commands.push({ type: "cancel_fetch", id });
    onFailed(e, id);
  }
}

function takeChunks(e: RelayEngine, id: number, chunks: readonly IndexedChunk[]): void {
  for (const [index, bytes] of chunks) {
    // A chunk may end its own request: by completing the object, or by not being what it was.
    const found = e.fetches.get(id);
    const track = found && e.trackOf(found.object.track);
    if (!track) return;
    if (found.purpose === "verified") {
      verifyFetched(e, track, found.object, index, bytes);
    } else {
      track.unsigned.get(found.object)?.chunks.push({ bytes, hash: hashOf(bytes) });
      boundUnsigned(e, track);
    }
  }
}

function verifyFetched(
  e: RelayEngine,
  track: Track,
  key: ObjectKey,
  index: number,
  bytes: Uint8Array,
): void {
  const object = e.ring.get(key);
  if (!object) return;
  if (object.chunk(index)) e.counters.duplicateBytes += bytes.length;
  else if (chunkFault(object.descriptor, index, bytes) === undefined)
    accept(e, track, key, index, bytes, FROM_CDN);
  else onMismatch(e, track, key, undefined);
}

function onEnd(e: RelayEngine, id: number): void {
  const found = e.fetches.get(id);
  if (!found) return;
  const last: IndexedChunk[] = [];
  if (!found.body.end((index, bytes) => last.push([index, bytes]))) {
    onFailed(e, id);
    return;
  }
  const { object: key, purpose } = found;
  takeChunks(e, id, last);
  const track = e.trackOf(key.track);
  if (!track || !e.fetches.delete(id)) return;
  e.dirty = true;
  if (purpose === "verified") {
    e.ring.get(key)?.endReading(id);
    return;
  }
  const unsigned = track.unsigned.get(key);
  if (unsigned) [unsigned.fetch, unsigned.whole] = [undefined, true];
  playUnsigned(e, track, key);
}

function onFailed(e: RelayEngine, id: number): void {
  const found = e.fetches.get(id);
  if (!found) return;
  e.fetches.delete(id);
  e.counters.cdnFailures += 1;
  e.dirty = true;
  const object = e.ring.get(found.object);
  if (object?.endReading(id) && e.now >= object.retryAt) {
    object.failedFetches += 1;
    object.retryAt = e.now + pause(object.failedFetches);
  }
  const unsigned = e.trackOf(found.object.track)?.unsigned.get(found.object);
  if (unsigned?.fetch !== id) return;
  unsigned.fetch = undefined;
  unsigned.failures += 1;
  unsigned.retryAt = e.now + pause(unsigned.failures);
}

/** Gives up a request, unless all of it has come and only its end is still to be told. */
export function cancelFetch(e: RelayEngine, id: number): void {
  const found = e.fetches.get(id);
  if (!found || found.body.isDone) return;
  e.fetches.delete(id);
  e.commands.push({ type: "cancel_fetch", id });
}

/** The CDN has other bytes than those that were signed: they are played, and relayed to nobody. */
export function onMismatch(
  e: RelayEngine,
  track: Track,
  key: ObjectKey,
  body: Unsigned["chunks"] | undefined,
): void {
  e.counters.originMismatches += 1;
  const object = e.ring.get(key);
  if (!object) return;
  const readings = object.takeReadings();
  e.ring.lose(key);
  for (const id of readings)
    if (e.fetches.delete(id)) e.commands.push({ type: "cancel_fetch", id });
  e.dirty = true;
  if (object.publishedUnverified) return;
  const unsigned = unsignedAt(object.descriptor.uri, object.descriptor.byteRange);
  unsigned.mismatched = true;
  unsigned.whole = body !== undefined;
  unsigned.chunks = body ?? [];
  track.unsigned.set(key, unsigned);
  playUnsigned(e, track, key);
}

function playUnsigned(e: RelayEngine, track: Track, key: ObjectKey): void {
  const unsigned = track.unsigned.get(key);
  if (!unsigned?.whole || unsigned.published || !unsigned.mismatched) return;
  unsigned.published = true;
  track.unsigned.delete(key);
  track.playout.makeAvailable(key, e.now);
  e.publish({ type: "unverified", object: key, body: unsigned.chunks.map(({ bytes }) => bytes) });
}

/** What was read before it was signed becomes what it is, if it agrees. */
export function absorbUnsigned(e: RelayEngine, track: Track, key: ObjectKey): void {
  const unsigned = track.unsigned.get(key);
  const object = e.ring.get(key);
  if (!unsigned || !object) return;
  track.unsigned.delete(key);
  object.publishedUnverified = unsigned.published;
  if (unsigned.fetch !== undefined) object.beginReading(unsigned.fetch, 0, object.chunkCount);
  const agrees = unsigned.chunks.every(
    ({ bytes }, index) => chunkFault(object.descriptor, index, bytes) === undefined,
  );
  if (!agrees || (unsigned.whole && unsigned.chunks.length !== object.chunkCount)) {
    onMismatch(e, track, key, unsigned.whole ? unsigned.chunks : undefined);
    return;
  }
  const found = unsigned.fetch === undefined ? undefined : e.fetches.get(unsigned.fetch);
  if (found) {
    found.purpose = "verified";
    found.body.limit(object.descriptor.length);
  }
  for (const [index, { bytes }] of unsigned.chunks.entries())
    accept(e, track, key, index, bytes, FROM_CDN);
}

export function tendFetches(e: RelayEngine): void {
  for (const [id, found] of [...e.fetches]) {
    if (e.now < found.active + FETCH_SILENCE) continue;
    e.commands.push({ type: "cancel_fetch", id });
    onFailed(e, id);
  }
  for (const track of e.tracks) tendUnsigned(e, track);
}

function tendUnsigned(e: RelayEngine, track: Track): void {
  for (const [key, unsigned] of track.unsigned.entries()) {
    const due = !unsigned.whole && unsigned.fetch === undefined && e.now >= unsigned.retryAt;
    if (due && (track.isRoot || unsigned.mismatched) && canFetch(e))
      fetchUnsigned(e, key, unsigned);
  }
  // What was passed by long ago without ever being signed is not waited for.
  const { newest } = track;
  if (!newest) return;
  for (const [key] of track.unsigned.entries())
    if (key.epoch < newest.epoch || key.sequence + 8n < newest.sequence)
      dropUnsigned(e, track, key);
}

function boundUnsigned(e: RelayEngine, track: Track): void {
  const entries = track.unsigned.entries();
  const bytes = entries
    .flatMap(([, unsigned]) => unsigned.chunks)
    .reduce((sum, chunk) => sum + chunk.bytes.length, 0);
  const oldest = entries[0]?.[0];
  if (bytes > e.config.prefetchBytes && oldest) dropUnsigned(e, track, oldest);
}

function dropUnsigned(e: RelayEngine, track: Track, key: ObjectKey): void {
  const id = track.unsigned.get(key)?.fetch;
  track.unsigned.delete(key);
  if (id !== undefined && e.fetches.delete(id)) e.commands.push({ type: "cancel_fetch", id });
}

function pause(failures: number): number {
  return Math.min(RETRY.first * 2 ** Math.min(Math.max(0, failures - 1), 8), RETRY.most);
}
