/**
 * What goes into a relay engine, and what comes out of it.
 *
 * Events carry facts, never wishes about how to react. Commands are executed in order; the shell decides
 * nothing. Times are milliseconds since an arbitrary start.
 */
import type { ByteRange, ObjectKey } from "../media/object.js";
import type {
  Descriptor,
  MasterHeader,
  SignedStatement,
  TrackHeader,
  TrustedKeys,
} from "../media/statement.js";
import type { Provenance } from "./ring_object.js";

export type Role = "contributor" | "consumer" | "relay";
/** A peer's id, or the CDN. Ids are 16 lower-case hexadecimal digits. */
export type Source = { readonly peer: string } | "cdn";

export interface EngineConfig {
  readonly peer: string;
  readonly channel: string;
  readonly role: Role;
  /** The same seed and events give the same commands. */
  readonly seed: bigint;
  readonly ringBytes: number;
  readonly prefetchBytes: number;
  /** The most bytes that may wait on one link. */
  readonly linkLimitBytes: number;
  readonly defaultLease: CdnLease;
}

/** A browser's settings; a phone's ring is half as big. */
export function browserConfig(peer: string, channel: string, mobile: boolean): EngineConfig {
  return {
    peer,
    channel,
    role: "contributor",
    seed: BigInt(`0x${peer}`),
    ringBytes: (mobile ? 16 : 32) << 20,
    prefetchBytes: (mobile ? 8 : 16) << 20,
    linkLimitBytes: 192 << 10,
    defaultLease: { rateBps: 8_000_000, burstBytes: 8 << 20, lifetimeMs: Infinity },
  };
}

export interface Generation {
  readonly incarnation: bigint;
  readonly term: bigint;
  readonly index: bigint;
}

export interface CdnLease {
  readonly rateBps: number;
  readonly burstBytes: number;
  readonly lifetimeMs: number;
}

export interface TrackAssignment {
  readonly track: string;
  readonly stripe: number;
  readonly stripes: number;
  readonly source: Source | undefined;
  readonly standby: Source | undefined;
  readonly makeBeforeBreak: boolean;
}

export interface ChildAssignment {
  readonly track: string;
  readonly stripe: number;
  readonly peer: string;
  readonly standby: boolean;
}

export interface Assignment {
  readonly generation: Generation;
  readonly tracks: readonly TrackAssignment[];
  readonly children: readonly ChildAssignment[];
  readonly cdnLease: CdnLease | undefined;
  readonly uploadBps: number;
}

export type FeedEvent =
  | { readonly type: "opened" | "caught_up" | "lost" }
  | {
      readonly type: "announce";
      readonly object: ObjectKey;
      readonly uri: string;
      readonly byteRange: ByteRange | undefined;
    }
  | { readonly type: "statement"; readonly encoded: Uint8Array };

export type FetchUpdate =
  | { readonly type: "started"; readonly partial: boolean }
  | { readonly type: "body"; readonly bytes: Uint8Array }
  | { readonly type: "end" }
  | { readonly type: "failed"; readonly reason: string };

export type Event =
  | { readonly type: "welcome"; readonly incarnation: bigint; readonly keys: TrustedKeys }
  | { readonly type: "assignment"; readonly assignment: Assignment }
  | { readonly type: "link_up"; readonly peer: string }
  | { readonly type: "link_failed"; readonly peer: string; readonly reason: string }
  | { readonly type: "link_down"; readonly peer: string; readonly reason: "closed" | "lost" }
  | { readonly type: "frame"; readonly peer: string; readonly bytes: Uint8Array }
  | { readonly type: "ping"; readonly peer: string; readonly bytes: Uint8Array }
  | { readonly type: "buffered"; readonly peer: string; readonly bytes: number }
  | { readonly type: "feed"; readonly event: FeedEvent }
  | { readonly type: "fetch"; readonly id: number; readonly update: FetchUpdate }
  | { readonly type: "player_wants"; readonly object: ObjectKey }
  | { readonly type: "tracks_wanted"; readonly tracks: readonly string[] }
  | { readonly type: "timeout" };

export type LinkState = "up" | "failed" | "dead" | "corrupt" | "late" | "invalid" | "closed";
export type SourceState = "flowing" | "repairing" | "bypass";
export type LinkSide = "offer" | "await";

export type Publication =
  | { readonly type: "header"; readonly header: MasterHeader | TrackHeader }
  | { readonly type: "listed"; readonly descriptor: Descriptor }
  | {
      readonly type: "chunk";
      readonly object: ObjectKey;
      readonly index: number;
      readonly bytes: Uint8Array;
    }
  | {
      readonly type: "complete";
      readonly object: ObjectKey;
      readonly at: number;
      readonly from: Provenance;
    }
  /** What the CDN has instead of what was signed: played, relayed to nobody. */
  | {
      readonly type: "unverified";
      readonly object: ObjectKey;
      readonly body: readonly Uint8Array[];
    }
  | { readonly type: "evicted"; readonly object: ObjectKey }
  /** Whether statements of a track fail to come, so that the player has to read it from the CDN by itself. */
  | { readonly type: "bypass"; readonly track: string; readonly active: boolean };

export type Command =
  | { readonly type: "connect"; readonly peer: string; readonly side: LinkSide }
  | { readonly type: "disconnect"; readonly peer: string }
  | { readonly type: "send_frame"; readonly peer: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "send_ping"; readonly peer: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | {
      readonly type: "fetch";
      readonly id: number;
      readonly object: ObjectKey;
      readonly uri: string;
      readonly range: ByteRange | undefined;
    }
  | { readonly type: "cancel_fetch"; readonly id: number }
  | { readonly type: "open_feed" | "close_feed" }
  | { readonly type: "publish"; readonly publication: Publication }
  | { readonly type: "acknowledge"; readonly generation: Generation }
  | {
      readonly type: "report_link";
      readonly peer: string;
      readonly state: LinkState;
      readonly detail: string;
    }
  | {
      readonly type: "report_source";
      readonly track: string;
      readonly stripe: number;
      readonly source: Source | undefined;
      readonly state: SourceState;
      readonly generation: Generation;
    }
  | { readonly type: "report_tracks_wanted"; readonly tracks: readonly string[] };

/** Counts since the engine was made. */
export interface Counters {
  bytesFromCdn: number;
  bytesFromPeers: number;
  bytesFromStandby: number;
  bytesToPeers: number;
  duplicateBytes: number;
  corruptChunks: number;
  badStatements: number;
  conflictingStatements: number;
  cdnRequests: number;
  cdnFailures: number;
  cdnOverrunBytes: number;
  originMismatches: number;
  objectsCompleted: number;
  objectsMissed: number;
  repairRequests: number;
}

export function noCounts(): Counters {
  return {
    bytesFromCdn: 0,
    bytesFromPeers: 0,
    bytesFromStandby: 0,
    bytesToPeers: 0,
    duplicateBytes: 0,
    corruptChunks: 0,
    badStatements: 0,
    conflictingStatements: 0,
    cdnRequests: 0,
    cdnFailures: 0,
    cdnOverrunBytes: 0,
    originMismatches: 0,
    objectsCompleted: 0,
    objectsMissed: 0,
    repairRequests: 0,
  };
}

/** A source that a returning peer has, and the children that it serves. */
export interface HeldEdge {
  readonly track: string;
  readonly stripe: number;
  readonly source: Source | undefined;
  readonly standby: Source | undefined;
  readonly children: readonly string[];
}

export type { SignedStatement };

export function peerOf(source: Source | undefined): string | undefined {
  return source === undefined || source === "cdn" ? undefined : source.peer;
}

export function sameSource(a: Source | undefined, b: Source | undefined): boolean {
  return a === b || (peerOf(a) !== undefined && peerOf(a) === peerOf(b));
}

export function compareGenerations(a: Generation, b: Generation): number {
  for (const field of ["incarnation", "term", "index"] as const)
    if (a[field] !== b[field]) return a[field] < b[field] ? -1 : 1;
  return 0;
}

/** In the order of their ids: what is done for each peer is done in the same order everywhere. */
export function inOrder<V>(map: ReadonlyMap<string, V>): [string, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}
