/** Requests to the CDN: from the bytes of an HTTP body to chunks, and the lease that paces them. */
import { CHUNK_SIZE, MAX_OBJECT_LEN } from "../media/limits.js";
import type { ByteRange, ObjectKey } from "../media/object.js";
import { TokenBucket } from "./pacer.js";
import type { CdnLease } from "./types.js";

export interface Fetch {
  readonly object: ObjectKey;
  purpose: "verified" | "unsigned";
  readonly body: Body;
  readonly ranged: boolean;
  active: number;
}

type Emit = (index: number, bytes: Uint8Array) => void;

/** Cuts a body into an object's chunks. It neither verifies nor stores. */
export class Body {
  private readonly objectStart: number;
  private objectEnd: number | undefined;
  private askedStart: number;
  private askedEnd: number | undefined;
  private position: number | undefined;
  private buffer = new Uint8Array(CHUNK_SIZE);
  private filled = 0;
  private next = 0;

  private constructor(byteRange: ByteRange | undefined, length: number | undefined) {
    this.objectStart = byteRange?.offset ?? 0;
    const size = length ?? byteRange?.length;
    this.objectEnd = size === undefined ? undefined : this.objectStart + size;
    this.askedStart = this.objectStart;
    this.askedEnd = this.objectEnd;
  }

  static whole(byteRange: ByteRange | undefined): Body {
    return new Body(byteRange, undefined);
  }

  static run(byteRange: ByteRange | undefined, length: number, first: number, count: number): Body {
    const body = new Body(byteRange, length);
    body.askedStart = body.objectStart + first * CHUNK_SIZE;
    body.askedEnd = Math.min(body.objectStart + length, body.askedStart + count * CHUNK_SIZE);
    return body;
  }

  /** The object's length became known while its body comes. */
  limit(length: number): void {
    this.objectEnd = this.objectStart + length;
    this.askedEnd = Math.min(this.askedEnd ?? Infinity, this.objectEnd);
  }

  start(partial: boolean): void {
    const from = partial ? this.askedStart : 0;
    if (!partial) {
      this.askedStart = this.objectStart;
      this.askedEnd = this.objectEnd;
    }
    this.position = from;
    this.next = Math.floor((this.askedStart - this.objectStart) / CHUNK_SIZE);
  }

  get isDone(): boolean {
    return (
      this.askedEnd !== undefined && this.position !== undefined && this.position >= this.askedEnd
    );
  }

  /** Takes the next bytes; false: the body is longer than any object may be. */
  push(bytes: Uint8Array, emit: Emit): boolean {
    const at = this.position ?? 0;
    const end = at + bytes.length;
    this.position = end;
    const from = Math.max(this.askedStart, at);
    const to = Math.min(this.askedEnd ?? Infinity, end);
    if (from >= to) return true;
    if (to - this.objectStart > MAX_OBJECT_LEN) return false;
    let rest = bytes.subarray(from - at, to - at);
    while (rest.length > 0) {
      const piece = rest.subarray(0, Math.max(1, this.chunkLength() - this.filled));
      this.buffer.set(piece, this.filled);
      this.filled += piece.length;
      rest = rest.subarray(piece.length);
      if (this.filled >= this.chunkLength()) this.emit(emit);
    }
    return true;
  }

  /** The body ended. Says whether all came that was asked for. */
  end(emit: Emit): boolean {
    if (this.filled > 0) this.emit(emit);
    return this.position !== undefined && this.position >= (this.askedEnd ?? 0);
  }

  private emit(emit: Emit): void {
    emit(this.next, this.buffer.slice(0, this.filled));
    this.filled = 0;
    this.next += 1;
  }

  private chunkLength(): number {
    const length = this.objectEnd === undefined ? Infinity : this.objectEnd - this.objectStart;
    return Math.min(CHUNK_SIZE, length - this.next * CHUNK_SIZE);
  }
}

/** What may be taken from the CDN beyond what is assigned. */
export class Lease {
  private readonly bucket: TokenBucket;
  private expires: number | undefined;

  constructor(private readonly fallback: CdnLease) {
    this.bucket = new TokenBucket(fallback.rateBps, fallback.burstBytes, 0);
  }

  grant(lease: CdnLease | undefined, now: number): void {
    const granted = lease ?? this.fallback;
    this.bucket.configure(granted.rateBps, granted.burstBytes, now);
    this.expires = lease && now + lease.lifetimeMs;
  }

  /** An expired lease gives way to the default, never to nothing: a viewer's fallback needs nobody's leave. */
  tryTake(bytes: number, now: number): boolean {
    if (this.expires !== undefined && now >= this.expires) this.grant(undefined, now);
    return this.bucket.tryTake(bytes, now);
  }
}
