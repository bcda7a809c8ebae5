/** A link to a neighbour: its phase, what it may send, and what is on its way. */
import { sameKey, type ObjectKey } from "../media/object.js";
import { Downstream, type Next } from "./downstream.js";
import type { StatementPart } from "./frame.js";
import { Liveness, type Health } from "./liveness.js";
import { TokenBucket } from "./pacer.js";
import type { LinkSide } from "./types.js";

const STATEMENT_RATE = [200, 20_000] as const;
const CONTROL_RATE = [1_000, 10_000] as const;
const UNEXPECTED_RATE = [1_000_000, 16 << 20] as const;

export type Phase = "opening" | "up" | { readonly until: number };

/** A chunk that was begun. */
export interface Sending {
  readonly next: Next;
  readonly object: ObjectKey;
  readonly chunk: number;
  readonly stripe: number;
  readonly bytes: Uint8Array;
  offset: number;
}

interface Assembly {
  readonly object: ObjectKey;
  readonly chunk: number;
  readonly bytes: Uint8Array;
  filled: number;
}

export class Link {
  phase: Phase = "opening";
  wasUp = false;
  attempts = 0;
  closingAt: number | undefined;
  since = 0;
  greeted = false;
  liveness = new Liveness(0);
  downstream = new Downstream();
  sending: Sending | undefined;
  inFlight = 0;
  outbox: Uint8Array<ArrayBuffer>[] = [];
  statementAllowance = new TokenBucket(0, 0, 0);
  controlAllowance = new TokenBucket(0, 0, 0);
  unexpectedAllowance = new TokenBucket(0, 0, 0);
  private assembly: Assembly | undefined;
  private statement: { total: number; bytes: Uint8Array; filled: number } | undefined;

  constructor(
    readonly side: LinkSide,
    now: number,
  ) {
    this.reset("opening", now);
  }

  /** Forgets everything about the connection before. */
  reset(phase: Phase, now: number): void {
    const bucket = ([rate, burst]: readonly [number, number]) =>
      new TokenBucket(rate * 8, burst, now);
    this.phase = phase;
    this.since = now;
    this.greeted = false;
    this.liveness = new Liveness(now);
    this.downstream = new Downstream();
    this.sending = undefined;
    this.assembly = undefined;
    this.statement = undefined;
    this.inFlight = 0;
    this.outbox = [];
    this.statementAllowance = bucket(STATEMENT_RATE);
    this.controlAllowance = bucket(CONTROL_RATE);
    this.unexpectedAllowance = bucket(UNEXPECTED_RATE);
  }

  get isReady(): boolean {
    return this.phase === "up" && this.greeted;
  }

  health(now: number): Health {
    return this.liveness.health(now);
  }

  takes(track: number, stripe: number, stripes: number): boolean {
    return this.downstream.subscriptions.some(
      (s) => s.track === track && s.stripe === stripe && s.stripes === stripes,
    );
  }

  cancel(object: ObjectKey, first: number, count: number): void {
    this.downstream.cancel(object, first, count);
    const sending = this.sending;
    if (!sending || sending.offset !== 0 || !sameKey(sending.object, object)) return;
    const place = sending.chunk - first;
    if (place >= 0 && (count === 0 || place < count)) this.sending = undefined;
  }

  /** The whole statement once it is there; "mixed": the parts do not follow each other. */
  assembleStatement(part: StatementPart): Uint8Array | "mixed" | undefined {
    if (part.offset === 0 && part.bytes.length === part.total) {
      this.statement = undefined;
      return part.bytes;
    }
    if (part.offset === 0)
      this.statement = { total: part.total, bytes: new Uint8Array(part.total), filled: 0 };
    const statement = this.statement;
    if (statement?.total !== part.total || statement.filled !== part.offset) return "mixed";
    statement.bytes.set(part.bytes, statement.filled);
    statement.filled += part.bytes.length;
    if (statement.filled < statement.total) return undefined;
    this.statement = undefined;
    return statement.bytes;
  }

  /** The whole chunk once it is there. */
  assembleChunk(
    object: ObjectKey,
    chunk: number,
    offset: number,
    length: number,
    bytes: Uint8Array,
  ): Uint8Array | undefined {
    if (offset === 0 && bytes.length === length) {
      this.assembly = undefined;
      return bytes;
    }
    if (offset === 0) this.assembly = { object, chunk, bytes: new Uint8Array(length), filled: 0 };
    const assembly = this.assembly;
    const follows =
      assembly &&
      sameKey(assembly.object, object) &&
      assembly.chunk === chunk &&
      assembly.filled === offset &&
      offset + bytes.length <= length;
    if (!follows) {
      this.assembly = undefined;
      return undefined;
    }
    assembly.bytes.set(bytes, offset);
    assembly.filled += bytes.length;
    if (assembly.filled < length) return undefined;
    this.assembly = undefined;
    return assembly.bytes;
  }
}
