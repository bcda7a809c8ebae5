/**
 * One timer, on time in a hidden tab too: there browsers let a page's own timers fire once a second at the most, a
 * worker's as ever. Where a page may start no worker the page's timer has to do.
 */
const PROGRAM = `let timer;
onmessage = ({ data: { turn, ms } }) => {
  clearTimeout(timer);
  if (ms >= 0) timer = setTimeout(() => postMessage(turn), ms);
};`;

export class Clock {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private worker: Worker | undefined;
  private turn = 0;
  private due: number | undefined;
  private refused = false;

  constructor(private readonly ring: () => void) {
    document.addEventListener("visibilitychange", this.rearm);
  }

  /** Rings once, after so many milliseconds; what was set before is forgotten. */
  set(ms: number): void {
    this.due = performance.now() + ms;
    this.arm(ms);
  }

  close(): void {
    document.removeEventListener("visibilitychange", this.rearm);
    this.due = undefined;
    this.turn += 1;
    clearTimeout(this.timer);
    this.worker?.terminate();
  }

  private readonly rearm = (): void => {
    if (this.due !== undefined) this.arm(Math.max(0, this.due - performance.now()));
  };

  private arm(ms: number): void {
    this.turn += 1;
    clearTimeout(this.timer);
    const { turn } = this;
    const worker = document.hidden ? this.started() : undefined;
    if (worker) {
      worker.postMessage({ turn, ms });
    } else {
      this.timer = setTimeout(() => {
        this.rang(turn);
      }, ms);
    }
  }

  private rang(turn: number): void {
    if (turn !== this.turn || this.due === undefined) return;
    this.due = undefined;
    this.ring();
  }

  private started(): Worker | undefined {
    if (this.worker || this.refused) return this.worker;
    const uri = URL.createObjectURL(new Blob([PROGRAM], { type: "text/javascript" }));
    try {
      this.worker = new Worker(uri);
      this.worker.onmessage = ({ data }: MessageEvent<number>) => {
        this.rang(data);
      };
      // The page's policy may allow none.
      this.worker.onerror = () => {
        this.worker = undefined;
        this.refused = true;
        this.rearm();
      };
    } catch {
      this.refused = true;
    } finally {
      URL.revokeObjectURL(uri);
    }
    return this.worker;
  }
}
