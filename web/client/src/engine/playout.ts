/** A model of the player: what it has, and when it needs the next object. It knows nothing of the real one. */
import { compareKeys, sameKey, type ObjectKey } from "../media/object.js";

const TARGETS_BEHIND = 3;
const MAX_SEGMENTS = 1_024;
/** Far enough from nothing that no start lies before it. */
const ORIGIN = 86_400_000;

interface Segment {
  readonly key: ObjectKey;
  readonly start: number;
  readonly end: number;
  available: boolean;
}

type Playhead =
  | { readonly state: "running"; readonly from: number; readonly since: number }
  | { readonly state: "stalled"; readonly at: number; readonly since: number };

export class Playout {
  private readonly segments: Segment[] = [];
  private playhead: Playhead | undefined;
  private stallCount = 0;
  private stalledMs = 0;

  append(key: ObjectKey, duration: number): void {
    const last = this.segments.at(-1);
    if (last && compareKeys(last.key, key) >= 0) return;
    const start = last?.end ?? ORIGIN;
    this.segments.push({ key, start, end: start + duration, available: false });
    if (this.segments.length > MAX_SEGMENTS) this.segments.shift();
  }

  start(target: number, now: number): void {
    const last = this.segments.at(-1);
    if (!this.playhead && last)
      this.playhead = { state: "running", from: last.end - target * TARGETS_BEHIND, since: now };
  }

  makeAvailable(key: ObjectKey, now: number): void {
    this.advance(now);
    const segment = this.segments.find((known) => sameKey(known.key, key));
    if (segment) segment.available = true;
    this.advance(now);
  }

  advance(now: number): void {
    const playhead = this.playhead;
    if (playhead?.state === "running") {
      const { from, since } = playhead;
      const [reached, end] = [from + Math.max(0, now - since), this.playableEnd(from)];
      if (reached > end) {
        this.stallCount += 1;
        this.playhead = { state: "stalled", at: end, since: since + Math.max(0, end - from) };
        this.advance(now);
      } else {
        this.forgetPlayed(reached);
      }
    } else if (playhead && this.playableEnd(playhead.at) > playhead.at) {
      this.stalledMs += Math.max(0, now - playhead.since);
      this.playhead = { state: "running", from: playhead.at, since: now };
    }
  }

  /** How long until an object is needed; undefined: unknown. */
  timeTo(key: ObjectKey, now: number): number | undefined {
    return this.timeToSegment(now, (known) => sameKey(known, key));
  }

  /** How long until the first object from a key on is needed. */
  timeToFirstFrom(key: ObjectKey, now: number): number | undefined {
    return this.timeToSegment(now, (known) => compareKeys(known, key) >= 0);
  }

  private timeToSegment(now: number, is: (key: ObjectKey) => boolean): number | undefined {
    const segment = this.segments.find((known) => is(known.key));
    const position = this.position(now);
    return segment && position !== undefined ? Math.max(0, segment.start - position) : undefined;
  }

  buffer(now: number): number {
    const at = this.position(now);
    return at === undefined ? 0 : Math.max(0, this.playableEnd(at) - at);
  }

  latency(now: number): number {
    const at = this.position(now);
    return at === undefined ? 0 : Math.max(0, (this.segments.at(-1)?.end ?? 0) - at);
  }

  stalls(now: number): { count: number; ms: number } {
    const current = this.playhead?.state === "stalled" ? Math.max(0, now - this.playhead.since) : 0;
    return { count: this.stallCount, ms: this.stalledMs + current };
  }

  private position(now: number): number | undefined {
    if (!this.playhead) return undefined;
    if (this.playhead.state === "stalled") return this.playhead.at;
    return this.playhead.from + Math.max(0, now - this.playhead.since);
  }

  private playableEnd(at: number): number {
    const first = this.segments[0];
    let end = first ? Math.max(first.start, at) : at;
    for (const segment of this.segments) {
      if (segment.end <= at) continue;
      if (!segment.available) return Math.min(end, Math.max(segment.start, at));
      end = segment.end;
    }
    return end;
  }

  private forgetPlayed(position: number): void {
    while (this.segments.length > 1 && (this.segments[0]?.end ?? position) < position)
      this.segments.shift();
  }
}
