/** The objects of all tracks, bounded in bytes. A chunk is in memory once, however many children it goes to. */
import { compareKeys, type ObjectKey } from "../media/object.js";
import { initOf, sameBytes, type Descriptor, type SignedStatement } from "../media/statement.js";
import { KeyMap } from "./key_map.js";
import { RingObject } from "./ring_object.js";

const MAX_OBJECTS_PER_TRACK = 1_024;

export class Ring {
  private readonly objects = new KeyMap<RingObject>();
  private readonly wanted = new KeyMap<true>();
  bytes = 0;

  constructor(private readonly limit: number) {}

  insert(
    descriptor: Descriptor,
    signed: SignedStatement,
    stripes: number,
    now: number,
  ): "new" | "known" | "conflict" {
    const known = this.objects.get(descriptor.key);
    if (known) return sameBytes(known.signed.payload, signed.payload) ? "known" : "conflict";
    this.objects.set(descriptor.key, new RingObject(signed, descriptor, stripes, now));
    return "new";
  }

  restripe(track: number, stripes: number): void {
    for (const [, object] of this.objects.ofTrack(track)) object.restripe(stripes);
  }

  get(key: ObjectKey): RingObject | undefined {
    return this.objects.get(key);
  }

  atOrAfter(key: ObjectKey): RingObject | undefined {
    const found = this.objects.atOrAfter(key)?.[1];
    return found?.key.track === key.track ? found : undefined;
  }

  after(key: ObjectKey): RingObject | undefined {
    const found = this.objects.after(key)?.[1];
    return found?.key.track === key.track ? found : undefined;
  }

  ofTrack(track: number): RingObject[] {
    return this.objects.ofTrack(track).map(([, object]) => object);
  }

  wantedOf(track: number): ObjectKey[] {
    return this.wanted.ofTrack(track).map(([key]) => key);
  }

  get wantsAny(): boolean {
    return this.wanted.size > 0;
  }

  want(key: ObjectKey): boolean {
    const object = this.objects.get(key);
    if (object?.status !== "absent") return false;
    object.status = object.missing === 0 ? "complete" : "wanted";
    if (object.status === "wanted") this.wanted.set(key, true);
    return true;
  }

  lose(key: ObjectKey): void {
    const object = this.objects.get(key);
    if (!object) return;
    object.status = "lost";
    this.wanted.delete(key);
    this.dropChunks(object);
  }

  store(key: ObjectKey, index: number, bytes: Uint8Array): boolean {
    const object = this.objects.get(key);
    if (object?.status !== "wanted" || !object.put(index, bytes)) return false;
    this.bytes += bytes.length;
    if (object.missing === 0) {
      object.status = "complete";
      this.wanted.delete(key);
    }
    return true;
  }

  private dropChunks(object: RingObject): void {
    this.bytes -= object.bytes;
    object.dropChunks();
  }

  /** Drops the oldest objects beyond the limit; what came since `keepSince` only beyond twice the limit. */
  evict(keepSince: number): ObjectKey[] {
    const evicted: ObjectKey[] = [];
    while (this.bytes > this.limit) {
      let oldest: RingObject | undefined;
      for (const [, object] of this.objects.entries()) {
        if (object.key.kind === "init" || !object.holdsAny) continue;
        if (!oldest || object.arrived < oldest.arrived) oldest = object;
      }
      if (!oldest || (oldest.arrived >= keepSince && this.bytes <= this.limit * 2)) break;
      this.dropChunks(oldest);
      this.wanted.delete(oldest.key);
      oldest.status = "absent";
      oldest.playerWaits = undefined;
      evicted.push(oldest.key);
    }
    return evicted;
  }

  /** Forgets the oldest objects of a track beyond their number, but for the init sections still needed. */
  prune(track: number): ObjectKey[] {
    const objects = this.ofTrack(track);
    const surplus = objects.length - MAX_OBJECTS_PER_TRACK;
    if (surplus <= 0) return [];
    const needed = objects.slice(surplus).flatMap((object) => initOf(object.descriptor) ?? []);
    return objects
      .slice(0, surplus)
      .map((object) => object.key)
      .filter((key) => !needed.some((init) => compareKeys(init, key) === 0))
      .filter((key) => this.forget(key));
  }

  forgetTrack(track: number): ObjectKey[] {
    return this.ofTrack(track)
      .map((object) => object.key)
      .filter((key) => this.forget(key));
  }

  private forget(key: ObjectKey): boolean {
    this.wanted.delete(key);
    const object = this.objects.get(key);
    if (!object) return false;
    this.objects.delete(key);
    this.bytes -= object.bytes;
    return object.holdsAny;
  }
}
