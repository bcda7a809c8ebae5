/** A track that is taken, and its stripes. */
import { compareKeys, type ByteRange, type ObjectKey } from "../media/object.js";
import type { MasterHeader, SignedStatement, TrackHeader } from "../media/statement.js";
import { KeyMap } from "./key_map.js";
import { Playout } from "./playout.js";
import { StatementLog } from "./statement_log.js";
import { peerOf, sameSource, type Source, type SourceState } from "./types.js";
import { UNDECIDED, type Decision } from "./upstream.js";

const DEFAULT_TARGET = 4_000;
const MAX_INTERVAL = 1_000;

export interface Assigned {
  readonly source: Source | undefined;
  readonly standby: Source | undefined;
  readonly makeBeforeBreak: boolean;
}

export interface Subscribed {
  readonly since: number;
  resumed: number;
  readonly from: ObjectKey | undefined;
  stated: ObjectKey | undefined;
  flowed: boolean;
}

export class Stripe {
  assignedAt: number;
  previous: string | undefined;
  previousRoot = false;
  readonly subscribed = new Map<string, Subscribed>();
  /** Since when a peer repairs its own source, and until when it hopes to. */
  readonly repairingPeers = new Map<string, { since: number; until: number }>();
  readonly refused = new Map<string, number>();
  decision: Decision = UNDECIDED;
  rootSince: number | undefined;
  cdnFlowed = false;
  progress: number;
  begun: number;
  chunkInterval = 0;
  reported: { source: Source | undefined; state: SourceState } | undefined;
  toldRepairing = false;
  lateObjects = 0;
  lateReported: number | undefined;

  constructor(
    public assigned: Assigned,
    now: number,
  ) {
    this.assignedAt = this.progress = this.begun = now;
  }

  reassign(assigned: Assigned, now: number): void {
    if (!sameSource(this.assigned.source, assigned.source)) {
      const next = peerOf(assigned.source);
      const active = peerOf(this.decision.active);
      const keeps =
        active !== undefined &&
        assigned.makeBeforeBreak &&
        active !== next &&
        this.subscribed.has(active);
      this.previous = keeps ? active : undefined;
      this.previousRoot = next !== undefined && this.rootSince !== undefined;
      this.assignedAt = now;
    }
    this.assigned = assigned;
  }

  onProgress(arrived: number, now: number): void {
    const from = Math.max(this.progress, arrived, this.begun);
    const sample = Math.min(MAX_INTERVAL, Math.max(0, now - from));
    this.chunkInterval = this.chunkInterval - this.chunkInterval / 8 + sample / 8;
    this.progress = now;
  }

  peers(): string[] {
    const { source, standby } = this.assigned;
    return [peerOf(source), peerOf(standby), this.previous].filter((peer) => peer !== undefined);
  }

  isHadFrom(peer: string): boolean {
    return this.peers().includes(peer) || this.subscribed.has(peer);
  }

  isInFlow(key: ObjectKey): boolean {
    const brings = (s: Subscribed) =>
      s.flowed && s.from !== undefined && compareKeys(key, s.from) >= 0;
    return this.decision.flowing && [...this.subscribed.values()].some(brings);
  }
}

/** What was read from the CDN before, or instead of what, it was signed. */
export interface Unsigned {
  readonly uri: string;
  readonly byteRange: ByteRange | undefined;
  chunks: { readonly bytes: Uint8Array; readonly hash: Uint8Array }[];
  fetch: number | undefined;
  whole: boolean;
  failures: number;
  retryAt: number;
  mismatched: boolean;
  published: boolean;
}

export function unsignedAt(uri: string, byteRange: ByteRange | undefined): Unsigned {
  return {
    uri,
    byteRange,
    chunks: [],
    fetch: undefined,
    whole: false,
    failures: 0,
    retryAt: 0,
    mismatched: false,
    published: false,
  };
}

export class Track {
  index: number | undefined;
  uri = "";
  stripes: Stripe[];
  /** Peers that may still send by a subscription to a stripe that is no more. */
  stale: { readonly peer: string; readonly stripe: number }[] = [];
  header: SignedStatement | undefined;
  readonly log = new StatementLog();
  start: ObjectKey | undefined;
  newest: ObjectKey | undefined;
  signed: ObjectKey | undefined;
  rhythm: { readonly at: number; readonly duration: number } | undefined;
  readonly unsigned = new KeyMap<Unsigned>();
  bypass = false;
  readonly playout = new Playout();
  startObjects = 0;
  treeFlowed = false;

  constructor(
    readonly name: string,
    assigned: readonly Assigned[],
    now: number,
  ) {
    this.stripes = assigned.map((one) => new Stripe(one, now));
  }

  get isRoot(): boolean {
    return this.stripes.every((stripe) => stripe.rootSince !== undefined);
  }

  stripe(number: number): Stripe {
    const stripe = this.stripes[number];
    if (!stripe) throw new RangeError("invariant: stripes are counted from 0");
    return stripe;
  }

  stripeOf(chunk: number): number {
    return chunk % this.stripes.length;
  }

  resolve(master: MasterHeader): void {
    const found = master.tracks.find((track) => track.name === this.name);
    if (found) ({ index: this.index, uri: this.uri } = found);
  }

  get trackHeader(): TrackHeader | undefined {
    const statement = this.header?.statement;
    return statement?.type === "track" ? statement : undefined;
  }

  get target(): number {
    return this.trackHeader?.targetMs ?? DEFAULT_TARGET;
  }

  private get hasEnded(): boolean {
    const header = this.trackHeader;
    if (header?.endSequence === undefined || !this.newest) return false;
    return this.newest.epoch === header.epoch && this.newest.sequence >= header.endSequence;
  }

  /** When the next statement is due. */
  get due(): number | undefined {
    if (this.hasEnded || !this.rhythm) return undefined;
    return this.rhythm.at + Math.max(100, this.rhythm.duration);
  }

  isOverdue(now: number): boolean {
    return this.due !== undefined && now > this.due + this.target / 2;
  }

  isHadFrom(peer: string): boolean {
    return this.stripes.some((stripe) => stripe.isHadFrom(peer));
  }

  state(stripe: Stripe): SourceState | undefined {
    if (this.bypass) return "bypass";
    if (stripe.decision.repairing) return "repairing";
    return stripe.decision.flowing ? "flowing" : undefined;
  }

  isWanted(key: ObjectKey): boolean {
    return this.start !== undefined && compareKeys(key, this.start) >= 0;
  }
}
