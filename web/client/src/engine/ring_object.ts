/** An object in the ring: its statement, its chunks, and how each stripe's share of it does. */
import type { ObjectKey } from "../media/object.js";
import { chunkCount, type Descriptor, type SignedStatement } from "../media/statement.js";

export type Status = "absent" | "wanted" | "complete" | "lost";
export type Run = readonly [first: number, count: number];

/** From where bytes came. */
export interface Provenance {
  parentBytes: number;
  standbyBytes: number;
  cdnBytes: number;
}

export function nowhere(): Provenance {
  return { parentBytes: 0, standbyBytes: 0, cdnBytes: 0 };
}

/** What of an object belongs to one stripe. */
export interface Share {
  missing: number;
  readonly from: Provenance;
  lastChunk: number;
  asked: { readonly peer: string; readonly at: number } | undefined;
  /** The two peers that said last that they do not have the object. */
  refusedBy: readonly string[];
}

export class RingObject {
  private chunks: (Uint8Array | undefined)[];
  private shares: Share[] = [];
  private earlier = nowhere();
  private readings: { id: number; first: number; count: number }[] = [];
  missing: number;
  status: Status = "absent";
  publishedUnverified = false;
  playerWaits: number | undefined;
  failedFetches = 0;
  retryAt = 0;

  constructor(
    readonly signed: SignedStatement,
    readonly descriptor: Descriptor,
    stripes: number,
    readonly arrived: number,
  ) {
    this.chunks = new Array<Uint8Array | undefined>(chunkCount(descriptor)).fill(undefined);
    this.missing = this.chunks.length;
    this.restripe(stripes);
  }

  get key(): ObjectKey {
    return this.descriptor.key;
  }

  restripe(stripes: number): void {
    this.earlier = this.from();
    this.shares = Array.from({ length: Math.max(1, stripes) }, () => ({
      missing: 0,
      from: nowhere(),
      lastChunk: 0,
      asked: undefined,
      refusedBy: [],
    }));
    this.countMissing();
  }

  private countMissing(): void {
    this.missing = 0;
    for (const share of this.shares) share.missing = 0;
    for (const [index, chunk] of this.chunks.entries()) {
      if (chunk) continue;
      this.missing += 1;
      this.share(this.stripeOf(index)).missing += 1;
    }
  }

  get chunkCount(): number {
    return this.chunks.length;
  }

  chunk(index: number): Uint8Array | undefined {
    return this.chunks[index];
  }

  stripeOf(chunk: number): number {
    return chunk % this.shares.length;
  }

  share(stripe: number): Share {
    const share = this.shares[stripe];
    if (!share)
      throw new RangeError("invariant: an object has as many shares as its track stripes");
    return share;
  }

  from(): Provenance {
    const from = { ...this.earlier };
    for (const share of this.shares) {
      from.parentBytes += share.from.parentBytes;
      from.standbyBytes += share.from.standbyBytes;
      from.cdnBytes += share.from.cdnBytes;
    }
    return from;
  }

  get holdsAny(): boolean {
    return this.missing < this.chunks.length;
  }

  put(index: number, bytes: Uint8Array): boolean {
    if (index >= this.chunks.length || this.chunks[index]) return false;
    this.chunks[index] = bytes;
    this.missing -= 1;
    this.share(this.stripeOf(index)).missing -= 1;
    return true;
  }

  dropChunks(): void {
    this.chunks.fill(undefined);
    this.countMissing();
  }

  missingRuns(of: ReadonlySet<number>): Run[] {
    return this.runs((index, held) => !held && of.has(this.stripeOf(index)) && !this.isRead(index));
  }

  /** What needs not be sent any more of a stripe. Chunks of other stripes may lie in the runs. */
  hadRuns(stripe: number): Run[] {
    const stripes = this.shares.length;
    return this.runs((index, held) => held || this.isRead(index)).filter(
      ([first, count]) => (stripe + stripes - this.stripeOf(first)) % stripes < count,
    );
  }

  private runs(belongs: (index: number, held: boolean) => boolean): Run[] {
    const runs: [number, number][] = [];
    for (const [index, chunk] of this.chunks.entries()) {
      if (!belongs(index, chunk !== undefined)) continue;
      const last = runs.at(-1);
      if (last && last[0] + last[1] === index) last[1] += 1;
      else runs.push([index, 1]);
    }
    return runs;
  }

  firstMissing(stripe: number): number | undefined {
    for (let index = stripe; index < this.chunks.length; index += this.shares.length)
      if (!this.chunks[index]) return index;
    return undefined;
  }

  get bytes(): number {
    return this.chunks.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0);
  }

  beginReading(id: number, first: number, count: number): void {
    this.readings.push({ id, first, count });
  }

  endReading(id: number): boolean {
    const before = this.readings.length;
    this.readings = this.readings.filter((reading) => reading.id !== id);
    return this.readings.length < before;
  }

  /** A request brings the whole object: returns the others, which are of no use any more. */
  readsAll(id: number): number[] {
    const others = this.readings.map((reading) => reading.id).filter((other) => other !== id);
    this.readings = [{ id, first: 0, count: this.chunks.length }];
    return others;
  }

  takeReadings(): number[] {
    const ids = this.readings.map((reading) => reading.id);
    this.readings = [];
    return ids;
  }

  get isBeingRead(): boolean {
    return this.readings.length > 0;
  }

  /** Whether anything that a stripe misses is being read from the CDN. */
  shareIsRead(stripe: number): boolean {
    return this.chunks.some(
      (chunk, index) => !chunk && this.stripeOf(index) === stripe && this.isRead(index),
    );
  }

  private isRead(index: number): boolean {
    return this.readings.some(({ first, count }) => index >= first && index - first < count);
  }
}
