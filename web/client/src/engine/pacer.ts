/** A token bucket that may go into debt: for the uplink, the CDN's lease and what neighbours may send. */

/** Of a byte, in bit/s times milliseconds: with whole milliseconds every sum is exact. */
const BYTE = 8_000;

export class TokenBucket {
  private level: number;

  constructor(
    private rate: number,
    private burst: number,
    private updated: number,
  ) {
    this.level = burst * BYTE;
  }

  configure(rate: number, burst: number, now: number): void {
    this.refill(now);
    this.rate = rate;
    this.burst = burst;
    this.level = Math.min(this.level, burst * BYTE);
  }

  get rateBps(): number {
    return this.rate;
  }

  private refill(now: number): void {
    const gained = Math.max(0, now - this.updated) * this.rate;
    this.level = Math.min(this.level + gained, this.burst * BYTE);
    this.updated = Math.max(this.updated, now);
  }

  isReady(now: number): boolean {
    this.refill(now);
    return this.level > 0;
  }

  take(bytes: number, now: number): void {
    this.refill(now);
    this.level -= bytes * BYTE;
  }

  tryTake(bytes: number, now: number): boolean {
    this.refill(now);
    const enough = this.level >= Math.min(bytes, this.burst) * BYTE && this.rate > 0;
    if (enough) this.level -= bytes * BYTE;
    return enough;
  }

  /** When {@link isReady} will hold; undefined: never. */
  readyAt(): number | undefined {
    if (this.level > 0) return this.updated;
    return this.rate === 0 ? undefined : this.updated + (1 - this.level) / this.rate;
  }
}
