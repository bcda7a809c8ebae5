/** How long to wait before the next attempt: doubling, and jittered so that an audience does not come back at once. */
export class Backoff {
  private attempts = 0;

  constructor(
    private readonly first: number,
    private readonly most: number,
    private readonly random: () => number = Math.random,
  ) {}

  next(): number {
    const ceiling = Math.min(this.most, this.first * 2 ** Math.min(this.attempts, 16));
    this.attempts += 1;
    return ceiling * (0.5 + this.random() / 2);
  }

  reset(): void {
    this.attempts = 0;
  }
}
