/**
 * Links to neighbours: one RTCPeerConnection each, with two negotiated channels as WIRE.md lays down.
 *
 * It connects when the engine says so, passes signals and messages on, and decides nothing but what an attempt to
 * connect is: offers carry a number, and answers and candidates of another number are dropped.
 */
import { create } from "@bufbuild/protobuf";
import type { Event, LinkSide } from "../engine/types.js";
import * as v1 from "../gen/espalier/v1/peer_pb.js";

const OPEN_TIMEOUT = 10_000;
/** How long a signal waits for the assignment that explains it. */
const PATIENCE = 5_000;
const MAX_WAITING = 256;
/** When to tell the engine that a child took something. */
const LOW_WATER = 32 << 10;

interface Slot {
  readonly side: LinkSide;
  attempt: bigint;
  connection: RTCPeerConnection | undefined;
  data: RTCDataChannel | undefined;
  ping: RTCDataChannel | undefined;
  open: boolean;
  heard: boolean;
  candidates: string[];
  queue: Uint8Array<ArrayBuffer>[];
  timer: ReturnType<typeof setTimeout> | undefined;
}

export class Links {
  private readonly slots = new Map<string, Slot>();
  private waiting: { readonly until: number; readonly signal: v1.Signal }[] = [];
  iceServers: RTCIceServer[] = [];

  constructor(
    private readonly self: string,
    private readonly tell: (event: Event) => void,
    private readonly say: (signal: v1.Signal) => void,
  ) {}

  connect(peer: string, side: LinkSide): void {
    this.disconnect(peer);
    const attempt = side === "offer" ? crypto.getRandomValues(new BigUint64Array(1))[0] : 0n;
    const slot: Slot = {
      side,
      attempt: attempt ?? 1n,
      connection: undefined,
      data: undefined,
      ping: undefined,
      open: false,
      heard: false,
      candidates: [],
      queue: [],
      timer: undefined,
    };
    this.slots.set(peer, slot);
    if (side === "offer") {
      this.make(peer, slot);
      this.guard(peer, slot, this.offer(peer, slot));
    }
    const mine = this.waiting.filter(({ signal }) => signal.peer === peer);
    this.waiting = this.waiting.filter(({ signal }) => signal.peer !== peer);
    for (const { signal } of mine) this.signal(signal);
  }

  disconnect(peer: string): void {
    const slot = this.slots.get(peer);
    if (!slot) return;
    this.slots.delete(peer);
    abandon(slot);
  }

  close(): void {
    for (const peer of [...this.slots.keys()]) this.disconnect(peer);
  }

  private make(peer: string, slot: Slot): void {
    const connection = new RTCPeerConnection({ iceServers: this.iceServers });
    slot.connection = connection;
    slot.heard = false;
    const data = connection.createDataChannel("data", { negotiated: true, id: 0, ordered: true });
    const ping = connection.createDataChannel("ping", {
      negotiated: true,
      id: 1,
      ordered: false,
      maxRetransmits: 0,
    });
    [slot.data, slot.ping] = [data, ping];
    data.binaryType = ping.binaryType = "arraybuffer";
    data.bufferedAmountLowThreshold = LOW_WATER;
    const current = () => this.slots.get(peer) === slot && slot.connection === connection;
    const opened = () => {
      if (!current() || data.readyState !== "open" || ping.readyState !== "open") return;
      // It says that this end can receive; the side that accepted says nothing else before it was heard.
      if (!slot.heard || slot.side === "offer") data.send(new Uint8Array());
      if (slot.side === "offer" || slot.heard) this.opened(peer, slot);
    };
    data.onopen = ping.onopen = opened;
    data.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (!current()) return;
      if (!slot.heard) {
        slot.heard = true;
        if (!slot.open && data.readyState === "open" && ping.readyState === "open")
          this.opened(peer, slot);
      }
      if (event.data.byteLength > 0)
        this.tell({ type: "frame", peer, bytes: new Uint8Array(event.data) });
    };
    ping.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (current() && slot.open)
        this.tell({ type: "ping", peer, bytes: new Uint8Array(event.data) });
    };
    data.onbufferedamountlow = () => {
      if (!current()) return;
      this.flush(peer, slot);
      this.tell({ type: "buffered", peer, bytes: buffered(slot) });
    };
    data.onclose = () => {
      if (current()) this.lost(peer, slot, "closed", "its channel closed");
    };
    connection.onconnectionstatechange = () => {
      if (current() && connection.connectionState === "failed")
        this.lost(peer, slot, "lost", "no pair of addresses connects");
    };
    connection.onicecandidate = ({ candidate }) => {
      if (current())
        this.send(peer, slot.attempt, "candidate", candidate ? JSON.stringify(candidate) : "");
    };
    slot.timer = setTimeout(() => {
      if (current() && !slot.open) this.lost(peer, slot, "lost", "it did not open in time");
    }, OPEN_TIMEOUT);
  }

  private opened(peer: string, slot: Slot): void {
    if (slot.open) return;
    slot.open = true;
    clearTimeout(slot.timer);
    this.tell({ type: "link_up", peer });
  }

  private lost(peer: string, slot: Slot, reason: "closed" | "lost", why: string): void {
    const { open, side } = slot;
    if (!open && side === "await") {
      // The other end offers again.
      abandon(slot);
      slot.connection = slot.data = slot.ping = undefined;
      slot.attempt = 0n;
      return;
    }
    this.disconnect(peer);
    this.tell(
      open ? { type: "link_down", peer, reason } : { type: "link_failed", peer, reason: why },
    );
  }

  private guard(peer: string, slot: Slot, work: Promise<void>): void {
    const { connection } = slot;
    work.catch((error: unknown) => {
      if (this.slots.get(peer) === slot && slot.connection === connection)
        this.lost(
          peer,
          slot,
          "lost",
          error instanceof Error ? error.message : "negotiation failed",
        );
    });
  }

  private async offer(peer: string, slot: Slot): Promise<void> {
    const { connection, attempt } = slot;
    if (!connection) return;
    await connection.setLocalDescription(await connection.createOffer());
    this.send(peer, attempt, "offerSdp", connection.localDescription?.sdp ?? "");
  }

  private send(
    peer: string,
    attempt: bigint,
    kind: "offerSdp" | "answerSdp" | "candidate" | "refused",
    value: string,
  ): void {
    this.say(create(v1.SignalSchema, { peer, attempt, kind: { case: kind, value } }));
  }

  /** A neighbour's signal came through the orchestrator. */
  signal(signal: v1.Signal): void {
    const now = performance.now();
    this.waiting = this.waiting.filter(({ until }) => until > now);
    const { peer, attempt, kind } = signal;
    const slot = this.slots.get(peer);
    if (!slot) {
      if (this.waiting.length < MAX_WAITING) this.waiting.push({ until: now + PATIENCE, signal });
      return;
    }
    if (kind.case === "offerSdp") {
      this.offered(peer, slot, attempt, signal, kind.value);
    } else if (attempt !== slot.attempt) {
      return;
    } else if (kind.case === "answerSdp") {
      this.guard(peer, slot, this.describe(slot, "answer", kind.value));
    } else if (kind.case === "candidate" && kind.value) {
      this.candidate(slot, kind.value);
    } else if (kind.case === "refused" && slot.side === "offer" && !slot.open) {
      this.lost(peer, slot, "lost", `refused: ${kind.value}`);
    }
  }

  private offered(peer: string, slot: Slot, attempt: bigint, signal: v1.Signal, sdp: string): void {
    if (slot.connection && slot.attempt === attempt) return;
    if (slot.open) {
      // The other end has given this link up; a new one will find the offer waiting.
      this.waiting.push({ until: performance.now() + PATIENCE, signal });
      this.lost(peer, slot, "lost", "offered anew");
      return;
    }
    // Both offer: the lower id's offer wins.
    if (slot.side === "offer" && this.self < peer) return;
    abandon(slot);
    slot.attempt = attempt;
    slot.candidates = [];
    this.make(peer, slot);
    this.guard(peer, slot, this.answer(peer, slot, sdp));
  }

  private async answer(peer: string, slot: Slot, sdp: string): Promise<void> {
    const { connection, attempt } = slot;
    if (!connection) return;
    await this.describe(slot, "offer", sdp);
    await connection.setLocalDescription(await connection.createAnswer());
    this.send(peer, attempt, "answerSdp", connection.localDescription?.sdp ?? "");
  }

  private async describe(slot: Slot, type: RTCSdpType, sdp: string): Promise<void> {
    await slot.connection?.setRemoteDescription({ type, sdp });
    for (const candidate of slot.candidates.splice(0)) this.candidate(slot, candidate);
  }

  private candidate(slot: Slot, text: string): void {
    const { connection } = slot;
    if (!connection?.remoteDescription) {
      if (slot.candidates.length < MAX_WAITING) slot.candidates.push(text);
      return;
    }
    try {
      // One candidate that cannot be read or used spoils nothing.
      connection.addIceCandidate(JSON.parse(text) as RTCIceCandidateInit).catch(() => undefined);
    } catch {
      return;
    }
  }

  frame(peer: string, bytes: Uint8Array<ArrayBuffer>): void {
    const slot = this.slots.get(peer);
    if (!slot?.open) return;
    slot.queue.push(bytes);
    this.flush(peer, slot);
  }

  private flush(peer: string, slot: Slot): void {
    while (slot.queue.length > 0 && slot.data?.readyState === "open") {
      const bytes = slot.queue[0];
      if (!bytes) return;
      try {
        slot.data.send(bytes);
      } catch {
        // The browser's own buffer is full: what is left goes when it has drained.
        return;
      }
      slot.queue.shift();
    }
    if (slot.data && slot.data.bufferedAmount <= LOW_WATER && slot.queue.length === 0)
      queueMicrotask(() => {
        if (this.slots.get(peer) === slot)
          this.tell({ type: "buffered", peer, bytes: buffered(slot) });
      });
  }

  ping(peer: string, bytes: Uint8Array<ArrayBuffer>): void {
    const slot = this.slots.get(peer);
    if (!slot?.open || slot.ping?.readyState !== "open") return;
    try {
      slot.ping.send(bytes);
    } catch {
      return;
    }
  }
}

function buffered(slot: Slot): number {
  return (
    (slot.data?.bufferedAmount ?? 0) + slot.queue.reduce((sum, bytes) => sum + bytes.length, 0)
  );
}

function abandon(slot: Slot): void {
  clearTimeout(slot.timer);
  slot.open = false;
  const { connection } = slot;
  slot.connection = undefined;
  connection?.close();
}
