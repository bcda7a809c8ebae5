/**
 * One child: cursors into the ring, and what it asked for by name.
 *
 * A subscription walks through the ring in push order and waits at the newest chunk: nothing is queued, copied
 * or remembered per chunk. Chunks asked for by name go first, for somebody's deadline is near.
 */
import { compareKeys, sameKey, type ObjectKey } from "../media/object.js";
import { initOf } from "../media/statement.js";
import type { ChunkRun, Cursor, Subscribe } from "./frame.js";
import type { Ring } from "./ring.js";
import type { RingObject } from "./ring_object.js";

const MAX_SUBSCRIPTIONS = 64;
const MAX_REQUESTS = 128;
const MAX_CANCELLED = 64;
const REQUEST_LIFETIME = 2_000;
const MAX_STEPS = 4_096;

/** The next thing to send to a child. */
export type Next =
  | { readonly type: "statement"; readonly object: ObjectKey }
  | {
      readonly type: "chunk";
      readonly object: ObjectKey;
      readonly chunk: number;
      readonly stripe: number;
    }
  | { readonly type: "unavailable"; readonly object: ObjectKey };

type Cause = "request" | { readonly track: number; readonly stripe: number };
type InitStep = "statement" | "sent" | number;

interface Wish {
  readonly object: ObjectKey;
  next: number;
  readonly end: number;
  readonly since: number;
}

export class Downstream {
  subscriptions: Subscription[] = [];
  private wishes: Wish[] = [];
  private turn = 0;
  private cause: Cause | undefined;

  /** Begins or moves a subscription; says whether there was room. */
  subscribe(subscribe: Subscribe, nextStatement: number): boolean {
    this.unsubscribe(subscribe.track, subscribe.stripe);
    if (this.subscriptions.length >= MAX_SUBSCRIPTIONS) return false;
    // What a subscription to another stripe brought the child has already.
    const had = this.subscriptions.find(
      (s) =>
        s.track === subscribe.track &&
        nextStatement >= s.firstStatement &&
        nextStatement < s.nextStatement,
    );
    this.subscriptions.push(
      new Subscription(
        subscribe,
        had?.firstStatement ?? nextStatement,
        had?.nextStatement ?? nextStatement,
      ),
    );
    return true;
  }

  unsubscribe(track: number, stripe: number): void {
    this.subscriptions = this.subscriptions.filter((s) => s.track !== track || s.stripe !== stripe);
  }

  dropTrack(track: number): void {
    this.subscriptions = this.subscriptions.filter((s) => s.track !== track);
    this.wishes = this.wishes.filter((wish) => wish.object.track !== track);
  }

  stated(track: number, place: number, next: number): void {
    for (const s of this.subscriptions)
      if (s.track === track && s.nextStatement === place) s.nextStatement = next;
  }

  cancel(object: ObjectKey, first: number, count: number): void {
    const end = count === 0 ? Infinity : first + count;
    for (const s of this.subscriptions) if (s.track === object.track) s.cancel(object, first, end);
    this.wishes = this.wishes.filter(
      (wish) => !sameKey(wish.object, object) || wish.next < first || wish.end > end,
    );
  }

  request(object: ObjectKey, runs: readonly ChunkRun[], now: number): boolean {
    this.wishes = this.wishes.filter((wish) => !sameKey(wish.object, object));
    for (const { first, count } of runs) {
      if (this.wishes.length >= MAX_REQUESTS) return false;
      this.wishes.push({ object, next: first, end: first + count, since: now });
    }
    return true;
  }

  /** Whether the child waits for chunks of an object by name. */
  waitsFor(object: ObjectKey): boolean {
    return this.wishes.some((wish) => sameKey(wish.object, object));
  }

  next(ring: Ring, now: number): Next | undefined {
    const wish = this.nextWish(ring, now);
    if (wish) {
      this.cause = "request";
      return wish;
    }
    const count = this.subscriptions.length;
    for (let offset = 0; offset < count; offset++) {
      const turn = (this.turn + offset) % count;
      const subscription = this.subscriptions[turn];
      const next = subscription?.next(ring);
      if (subscription && next) {
        this.turn = turn;
        this.cause = subscription;
        return next;
      }
    }
    return undefined;
  }

  private nextWish(ring: Ring, now: number): Next | undefined {
    this.wishes = this.wishes.filter((wish) => now - wish.since < REQUEST_LIFETIME);
    for (const [position, wish] of this.wishes.entries()) {
      const object = ring.get(wish.object);
      let next: Next | undefined;
      if (object?.status === "wanted" || object?.status === "complete") {
        if (object.chunk(wish.next))
          next = { type: "chunk", object: wish.object, chunk: wish.next, stripe: 0 };
      } else {
        next = { type: "unavailable", object: wish.object };
      }
      const first = this.wishes[0];
      if (next && first) {
        // Whatever is sent next is at the front.
        this.wishes[position] = first;
        this.wishes[0] = wish;
        return next;
      }
    }
    return undefined;
  }

  /** What {@link next} gave was sent. */
  sent(next: Next): void {
    const cause = this.cause;
    this.cause = undefined;
    if (cause === "request") {
      this.sentWish(next);
    } else if (cause) {
      this.turn += 1;
      this.subscriptions
        .find((s) => s.track === cause.track && s.stripe === cause.stripe)
        ?.sent(next);
    }
  }

  private sentWish(next: Next): void {
    if (next.type === "unavailable") {
      this.wishes = this.wishes.filter((wish) => !sameKey(wish.object, next.object));
    } else if (next.type === "chunk") {
      const wish = this.wishes[0];
      if (!wish || !sameKey(wish.object, next.object) || wish.next !== next.chunk) return;
      wish.next += 1;
      if (wish.next >= wish.end) this.wishes.shift();
    }
  }
}

/** A stripe of a track on its way to a child. */
export class Subscription {
  readonly track: number;
  readonly stripe: number;
  readonly stripes: number;
  private cursor: Cursor | undefined;
  private cancelled: { object: ObjectKey; first: number; end: number }[] = [];
  /** The init section that the child has had from here, and what of it is next. */
  private init: { key: ObjectKey; step: InitStep } | undefined;

  constructor(
    subscribe: Subscribe,
    readonly firstStatement: number,
    public nextStatement: number,
  ) {
    ({
      track: this.track,
      stripe: this.stripe,
      stripes: this.stripes,
      cursor: this.cursor,
    } = subscribe);
  }

  cancel(object: ObjectKey, from: number, to: number): void {
    let [first, end] = [from, to];
    this.cancelled = this.cancelled.filter((known) => {
      const touches = sameKey(known.object, object) && known.first <= end && first <= known.end;
      if (touches) [first, end] = [Math.min(first, known.first), Math.max(end, known.end)];
      return !touches;
    });
    if (this.cancelled.length === MAX_CANCELLED) this.cancelled.shift();
    this.cancelled.push({ object, first, end });
  }

  next(ring: Ring): Next | undefined {
    this.cursor ??= newest(ring, this.track);
    for (let step = 0; step < MAX_STEPS; step++) {
      const cursor = this.cursor;
      const object = cursor && ring.atOrAfter(cursor.object);
      if (!object) return undefined;
      const key = object.key;
      if (!sameKey(key, cursor.object)) {
        this.cursor = { object: key, chunk: 0 };
        continue;
      }
      if (object.status === "absent" || object.status === "lost")
        return { type: "unavailable", object: key };
      if (cursor.chunk >= object.chunkCount) {
        // The place behind the last chunk is a place to wait at until another object comes.
        const after = ring.after(key);
        if (!after) return undefined;
        this.cursor = { object: after.key, chunk: 0 };
        continue;
      }
      const init = this.initBefore(ring, object);
      if (init === "wait") return undefined;
      if (init !== "pass") return init;
      if (this.skips(key, cursor.chunk)) {
        this.cursor = { object: key, chunk: cursor.chunk + 1 };
        continue;
      }
      if (!object.chunk(cursor.chunk)) return undefined;
      return { type: "chunk", object: key, chunk: cursor.chunk, stripe: this.stripe };
    }
    return undefined;
  }

  private firstOfStripe(chunk: number): number {
    return chunk + ((this.stripe + this.stripes - (chunk % this.stripes)) % this.stripes);
  }

  private skips(key: ObjectKey, chunk: number): boolean {
    const cancelled = this.cancelled.some(
      ({ object, first, end }) => sameKey(object, key) && chunk >= first && chunk < end,
    );
    return this.firstOfStripe(chunk) !== chunk || cancelled;
  }

  private initBefore(ring: Ring, object: RingObject): Next | "wait" | "pass" {
    const init = initOf(object.descriptor);
    if (!init || compareKeys(init, object.key) >= 0) return "pass";
    if (!this.init || !sameKey(this.init.key, init)) this.init = { key: init, step: "statement" };
    const { step } = this.init;
    const held = ring.get(init);
    if (step === "sent" || !held || held.status === "absent" || held.status === "lost")
      return "pass";
    if (step === "statement") return { type: "statement", object: init };
    const chunk = this.firstOfStripe(step);
    if (held.chunk(chunk)) return { type: "chunk", object: init, chunk, stripe: this.stripe };
    return chunk >= held.chunkCount ? "pass" : "wait";
  }

  sent(next: Next): void {
    if (next.type === "statement") {
      this.init = { key: next.object, step: 0 };
    } else if (next.type === "unavailable") {
      this.stepOver(next.object);
    } else {
      this.sentChunk(next.object, next.chunk);
    }
  }

  private sentChunk(object: ObjectKey, chunk: number): void {
    const elsewhere = this.cursor && !sameKey(this.cursor.object, object);
    if (
      this.init &&
      typeof this.init.step === "number" &&
      sameKey(this.init.key, object) &&
      elsewhere
    ) {
      this.init.step = chunk + 1;
    } else if (this.cursor && !elsewhere) {
      this.cursor = { object: this.cursor.object, chunk: chunk + 1 };
      if (object.kind === "init") this.init = { key: object, step: "sent" };
    }
  }

  private stepOver(object: ObjectKey): void {
    const last = object.part === 0xffff_ffff;
    const successor = last
      ? { ...object, sequence: object.sequence + 1n, part: 0 }
      : { ...object, part: object.part + 1 };
    this.cursor = { object: successor, chunk: 0 };
  }
}

function newest(ring: Ring, track: number): Cursor | undefined {
  const held = ring
    .ofTrack(track)
    .findLast(
      ({ key, status }) => key.kind === "segment" && (status === "wanted" || status === "complete"),
    );
  return held && { object: held.key, chunk: 0 };
}
