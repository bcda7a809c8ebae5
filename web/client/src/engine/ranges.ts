/** What is taken from the CDN of an object that has a descriptor: which ranges, and whether it may be. */
import { CHUNK_SIZE } from "../media/limits.js";
import type { ObjectKey } from "../media/object.js";
import { chunkLength } from "../media/statement.js";
import { canFetch, fetchChunks } from "./fetching.js";
import type { RelayEngine } from "./relay_engine.js";
import type { Run } from "./ring_object.js";
import type { Track } from "./track.js";

/** Below so many target durations of buffer the lease does not block. */
const LOW_BUFFER = 1.5;

/** Asks the CDN for what is missing of some stripes of an object. */
export function takeFromCdn(
  e: RelayEngine,
  track: Track,
  key: ObjectKey,
  stripes: ReadonlySet<number>,
): void {
  const object = e.ring.get(key);
  if (!object) return;
  let runs = object.missingRuns(stripes);
  if (track.stripes.length === 1) runs = asOne(runs);
  // Every answer is the whole object: one of them will do.
  else if (e.ignoresRanges) runs = runs.slice(0, object.isBeingRead ? 0 : 1);
  for (const [first, count] of runs) {
    if (!canFetch(e) || !mayTake(e, track, beyondAssignment(e, track, key, first, count))) return;
    fetchChunks(e, key, first, count);
  }
}

/** How many bytes of a run belong to stripes that are not assigned to the CDN. */
function beyondAssignment(
  e: RelayEngine,
  track: Track,
  key: ObjectKey,
  first: number,
  count: number,
): number {
  const object = e.ring.get(key);
  if (!object) return 0;
  let bytes = 0;
  for (let chunk = first; chunk < first + count; chunk++)
    if (track.stripe(track.stripeOf(chunk)).assigned.source !== "cdn")
      bytes += chunkLength(object.descriptor, chunk) ?? CHUNK_SIZE;
  return bytes;
}

/** Whether the lease allows it, or the buffer is too low to ask. */
function mayTake(e: RelayEngine, track: Track, bytes: number): boolean {
  if (bytes === 0) return true;
  const low = track.playout.buffer(e.now) < track.target * LOW_BUFFER;
  if (e.lease.tryTake(bytes, e.now)) return true;
  if (low) e.counters.cdnOverrunBytes += bytes;
  return low;
}

/** One run for all: a request costs more than a few chunks twice. But the first alone, if most between is held. */
function asOne(runs: readonly Run[]): Run[] {
  const [head, last] = [runs[0], runs.at(-1)];
  if (!head || !last) return [];
  const missing = runs.reduce((sum, [, count]) => sum + count, 0);
  const span = last[0] + last[1] - head[0];
  return span <= missing * 2 ? [[head[0], span]] : [head];
}
