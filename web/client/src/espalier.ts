/**
 * A viewer: it owns a relay engine and its shell, and says what a player may read.
 *
 * It translates what happens into the engine's events, and executes the engine's commands. No player is known here:
 * whoever wants the media listens to publications.
 */
import { create } from "@bufbuild/protobuf";
import { RelayEngine } from "./engine/relay_engine.js";
import {
  browserConfig,
  type Command,
  type Counters,
  type Event,
  type Publication,
  type Role,
  type Source,
} from "./engine/types.js";
import type { NodeMessage } from "./gen/espalier/v1/peer_pb.js";
import { ReportSchema } from "./gen/espalier/v1/peer_pb.js";
import type { ObjectKey } from "./media/object.js";
import { Clock } from "./shell/clock.js";
import { Feed } from "./shell/feed.js";
import { Fetcher } from "./shell/fetcher.js";
import { Links } from "./shell/links.js";
import { Session, type Token } from "./shell/session.js";
import { assignmentEvent, commandToWire, welcomeEvent } from "./shell/translate.js";

/** What the viewer agreed to. `off`: no session and no address told to anybody. */
export type Consent = "off" | "receive" | "share";

export interface EspalierOptions {
  /** Nodes to attach to; all of one cluster. */
  readonly endpoints: readonly string[];
  readonly channel: string;
  /** A viewer token, or how to get one: asked at each attempt to attach. */
  readonly token: Token;
  readonly consent: Consent;
  /** The most that is uploaded, wire bit/s. */
  readonly uploadBps?: number;
  readonly tracks?: readonly string[];
  /** Turns an object's URI into where to fetch it: signed URLs, several CDNs. */
  readonly resolve?: (uri: string) => string | Promise<string>;
  /** STUN and TURN servers beside those that the node names. */
  readonly iceServers?: readonly RTCIceServer[];
  readonly onPublication?: (publication: Publication) => void;
  /** The channel's own playlist, as a node told it. */
  readonly onOrigin?: (uri: string) => void;
  /** Undefined: there is a session; else why there is none. */
  readonly onSession?: (problem: string | undefined) => void;
}

export interface Statistics extends Counters {
  readonly sources: readonly { track: string; stripe: number; source: Source | undefined }[];
  readonly children: readonly string[];
  readonly bufferMs: number;
  readonly latencyMs: number;
  readonly ringBytes: number;
}

const DEFAULT_UPLOAD = 3_000_000;
const MOBILE = /Android|iPhone|iPad|iPod|Mobile/;

interface Connection {
  readonly saveData?: boolean;
  readonly type?: string;
}

export class Espalier {
  readonly peer = randomPeer();
  private consent: Consent;
  private running: Running | undefined;

  constructor(private readonly options: EspalierOptions) {
    this.consent = options.consent;
    if (typeof addEventListener === "function") {
      addEventListener("pagehide", this.leave);
      addEventListener("pageshow", this.comeBack);
    }
    this.start();
  }

  private start(): void {
    if (this.consent !== "off" && !this.running)
      this.running = new Running(this.options, this.peer, this.consent);
  }

  private readonly leave = (): void => {
    this.running?.close();
    this.running = undefined;
  };

  private readonly comeBack = (event: PageTransitionEvent): void => {
    // A page that comes back from the browser's cache has lost its connections.
    if (event.persisted) this.start();
  };

  /** What the viewer agrees to from now on. */
  setConsent(consent: Consent): void {
    if (consent === this.consent) return;
    this.consent = consent;
    this.leave();
    this.start();
  }

  /** The player reads an object that was listed. */
  want(object: ObjectKey): void {
    this.running?.handle({ type: "player_wants", object });
  }

  /** The player reads these tracks, and no others. */
  wantTracks(tracks: readonly string[]): void {
    this.running?.handle({ type: "tracks_wanted", tracks });
  }

  statistics(): Statistics | undefined {
    return this.running?.statistics();
  }

  close(): void {
    if (typeof removeEventListener === "function") {
      removeEventListener("pagehide", this.leave);
      removeEventListener("pageshow", this.comeBack);
    }
    this.leave();
  }
}

/** The shell of one engine. */
class Running {
  private readonly engine: RelayEngine;
  private readonly session: Session;
  private readonly links: Links;
  private readonly feed: Feed;
  private readonly fetcher: Fetcher;
  private readonly started = performance.now();
  private readonly clock = new Clock(() => {
    this.handle({ type: "timeout" });
  });
  private reports: ReturnType<typeof setInterval> | undefined;
  private closed = false;
  private draining = false;

  constructor(
    private readonly options: EspalierOptions,
    peer: string,
    consent: Consent,
  ) {
    const mobile = MOBILE.test(navigator.userAgent);
    const metered = isMetered();
    const shares = consent === "share" && !metered;
    const role: Role = shares ? "contributor" : "consumer";
    const uploadBps = shares ? (options.uploadBps ?? DEFAULT_UPLOAD) : 0;
    const { endpoints, channel, token, tracks = [] } = options;
    this.engine = new RelayEngine({ ...browserConfig(peer, channel, mobile), role });
    this.links = new Links(
      peer,
      (event) => {
        this.handle(event);
      },
      (signal) => {
        this.session.say({ case: "signal", value: signal });
      },
    );
    this.fetcher = new Fetcher(
      (id, update) => {
        this.handle({ type: "fetch", id, update });
      },
      options.resolve ?? ((uri) => uri),
    );
    this.session = new Session(
      { endpoints, token, peer, channel, role, uploadBps, tracks, mobile, metered },
      {
        held: () => ({ generation: this.engine.generation, edges: this.engine.held() }),
        message: (message) => {
          this.onMessage(message);
        },
        state: (problem) => options.onSession?.(problem),
      },
    );
    this.feed = new Feed(this.session, channel, (event) => {
      this.handle({ type: "feed", event });
    });
  }

  private now(): number {
    return performance.now() - this.started;
  }

  handle(event: Event): void {
    if (this.closed) return;
    this.engine.handle(event, this.now());
    this.drain();
  }

  private drain(): void {
    // What a command brings about at once is handled in its own time, after what came before it.
    if (this.draining) return;
    this.draining = true;
    for (
      let command = this.engine.commands.shift();
      command;
      command = this.engine.commands.shift()
    )
      this.execute(command);
    this.draining = false;
    this.clock.set(Math.max(0, this.engine.timeout() - this.now()));
  }

  private execute(command: Command): void {
    switch (command.type) {
      case "connect":
        this.links.connect(command.peer, command.side);
        break;
      case "disconnect":
        this.links.disconnect(command.peer);
        break;
      case "send_frame":
        this.links.frame(command.peer, command.bytes);
        break;
      case "send_ping":
        this.links.ping(command.peer, command.bytes);
        break;
      case "fetch":
        this.fetcher.start(command.id, command.uri, command.range);
        break;
      case "cancel_fetch":
        this.fetcher.cancel(command.id);
        break;
      case "open_feed":
        this.feed.open();
        break;
      case "close_feed":
        this.feed.close();
        break;
      case "publish":
        this.options.onPublication?.(command.publication);
        break;
      default: {
        const kind = commandToWire(command);
        if (kind) this.session.say(kind);
      }
    }
  }

  private onMessage(message: NodeMessage): void {
    const { kind } = message;
    if (kind.case === "welcome") {
      const { signerUris, stunUris, stunHost, stunPorts, reportIntervalMs } = kind.value;
      if (signerUris.length > 0) this.feed.signers = signerUris;
      const host = stunHost || new URL(this.session.endpoint).hostname;
      const urls = [...stunUris, ...stunPorts.slice(0, 1).map((port) => `stun:${host}:${port}`)];
      const named = urls.length > 0 ? [{ urls }] : [];
      this.links.iceServers = [...(this.options.iceServers ?? []), ...named];
      clearInterval(this.reports);
      this.reports = setInterval(this.report, Math.max(1_000, reportIntervalMs));
      this.handle(welcomeEvent(kind.value));
      if (kind.value.originUri) this.options.onOrigin?.(kind.value.originUri);
    } else if (kind.case === "assignment") {
      const event = assignmentEvent(kind.value);
      if (event) this.handle(event);
    } else if (kind.case === "signal") {
      this.links.signal(kind.value);
    }
  }

  private readonly report = (): void => {
    const { counters } = this.engine;
    const { buffer, latency, stalls, stalledMs } = this.engine.playout(this.now());
    this.session.say({
      case: "report",
      value: create(ReportSchema, {
        bytesFromCdn: BigInt(counters.bytesFromCdn),
        bytesFromPeers: BigInt(counters.bytesFromPeers),
        bytesToPeers: BigInt(counters.bytesToPeers),
        bufferMs: Math.round(buffer),
        latencyMs: Math.round(latency),
        stalls,
        stallMs: Math.round(stalledMs),
        cdnOverrunBytes: BigInt(counters.cdnOverrunBytes),
        originMismatches: counters.originMismatches,
      }),
    });
  };

  statistics(): Statistics {
    const { buffer, latency } = this.engine.playout(this.now());
    return {
      ...this.engine.counters,
      sources: this.engine.tracks.flatMap((track) =>
        track.stripes.map((stripe, number) => ({
          track: track.name,
          stripe: number,
          source: stripe.decision.active,
        })),
      ),
      children: [...this.engine.children],
      bufferMs: buffer,
      latencyMs: latency,
      ringBytes: this.engine.ring.bytes,
    };
  }

  close(): void {
    this.closed = true;
    this.clock.close();
    clearInterval(this.reports);
    this.feed.close();
    this.fetcher.close();
    this.links.close();
    this.session.close();
  }
}

function isMetered(): boolean {
  const { connection } = navigator as Navigator & { connection?: Connection };
  return connection?.saveData === true || connection?.type === "cellular";
}

function randomPeer(): string {
  return [...crypto.getRandomValues(new Uint8Array(8))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
