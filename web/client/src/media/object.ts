/** Names of objects, in the order in which they are pushed. */

/** In push order: an init section goes before the parts and segments of the same number. */
export type ObjectKind = "init" | "part" | "segment";

const RANK: Record<ObjectKind, number> = { init: 0, part: 1, segment: 2 };

/** Names an object within a channel. */
export interface ObjectKey {
  readonly track: number;
  readonly epoch: number;
  readonly kind: ObjectKind;
  readonly sequence: bigint;
  readonly part: number;
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Orders objects by track, epoch, sequence, kind and part. */
export function compareKeys(a: ObjectKey, b: ObjectKey): number {
  if (a.track !== b.track) return a.track - b.track;
  if (a.epoch !== b.epoch) return a.epoch - b.epoch;
  if (a.sequence !== b.sequence) return a.sequence < b.sequence ? -1 : 1;
  if (a.kind !== b.kind) return RANK[a.kind] - RANK[b.kind];
  return a.part - b.part;
}

export function sameKey(a: ObjectKey | undefined, b: ObjectKey | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && compareKeys(a, b) === 0);
}

export function segmentKey(track: number, epoch: number, sequence: bigint): ObjectKey {
  return { track, epoch, kind: "segment", sequence, part: 0 };
}

export function initKey(track: number, epoch: number, sequence: bigint): ObjectKey {
  return { track, epoch, kind: "init", sequence, part: 0 };
}

/** A text that names an object, for maps and people. */
export function keyText(key: ObjectKey): string {
  return `${key.track}/${key.epoch}/${key.kind}/${key.sequence}/${key.part}`;
}
