/** Whether a neighbour lives: any byte is life, and pings ask for some. */
import { encodePing } from "./frame.js";

export const PING_INTERVAL = 250;
export const IDLE_PING_INTERVAL = 500;
export const RTT_INTERVAL = 5_000;
export const SILENT_AFTER = 1_000;
export const DEAD_AFTER = 4_000;

export type Health = "alive" | "silent" | "dead";

export class Liveness {
  private patience = PING_INTERVAL;
  private pinged: { nonce: bigint; at: number } | undefined;
  rtt: number | undefined;

  constructor(private heard: number) {}

  onBytes(now: number): void {
    this.heard = Math.max(this.heard, now);
  }

  onPong(nonce: bigint, now: number): void {
    if (this.pinged?.nonce !== nonce) return;
    const sample = Math.max(0, now - this.pinged.at);
    // Weighted as in RFC 6298: one part in eight.
    this.rtt = this.rtt === undefined ? sample : this.rtt - this.rtt / 8 + sample / 8;
  }

  setSource(isSource: boolean): void {
    this.patience = isSource ? PING_INTERVAL : IDLE_PING_INTERVAL;
  }

  get isSource(): boolean {
    return this.patience === PING_INTERVAL;
  }

  private nextPing(): number {
    if (!this.pinged) return 0;
    const { at } = this.pinged;
    return Math.min(Math.max(this.heard, at) + this.patience, at + RTT_INTERVAL);
  }

  takePing(nonce: bigint, now: number): Uint8Array<ArrayBuffer> | undefined {
    if (now < this.nextPing()) return undefined;
    this.pinged = { nonce, at: now };
    return encodePing({ type: "ping", nonce });
  }

  health(now: number): Health {
    const silence = Math.max(0, now - this.heard);
    if (silence >= DEAD_AFTER) return "dead";
    return silence >= SILENT_AFTER ? "silent" : "alive";
  }

  timeout(now: number): number {
    const change = this.heard + (this.health(now) === "alive" ? SILENT_AFTER : DEAD_AFTER);
    return Math.min(this.nextPing(), Math.max(change, now));
  }
}
