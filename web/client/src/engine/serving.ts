/** Chunks to children: one pacer, cursors into one ring, and nobody who waits for a slow sibling. */
import { CHUNK_SIZE } from "../media/limits.js";
import type { SignedStatement } from "../media/statement.js";
import { DATA_HEADER_LENGTH, encodeFrame } from "./frame.js";
import { flushOutbox, send } from "./links.js";
import type { RelayEngine } from "./relay_engine.js";
import { inOrder } from "./types.js";

export const WHOLE_CHUNK = CHUNK_SIZE;
const SMALL_FRAGMENT = 16 << 10;
const FAST_UPLINK = 10_000_000;
/** What data and statements leave free on a link for what is more urgent. */
const RESERVE_OF_DATA = 8 << 10;
const RESERVE_OF_STATEMENTS = 4 << 10;
const MAX_FRAMES = 1_024;

export function fragmentSize(uploadBps: number): number {
  return uploadBps < FAST_UPLINK ? SMALL_FRAGMENT : WHOLE_CHUNK;
}

function wireCost(length: number): number {
  return length + Math.floor(length / 16);
}

export function pump(e: RelayEngine): void {
  e.pacerBlocks = false;
  const peers = inOrder(e.links).map(([peer]) => peer);
  for (const peer of peers) {
    flushOutbox(e, peer);
    sendStatements(e, peer);
  }
  // Who only asks for a repair gets what the children leave over: were it the other way round, a child that is
  // late would make others late, and those again others.
  const served = peers.filter((peer) => serves(e, peer));
  if (
    serveInTurn(
      e,
      served.filter((peer) => depends(e, peer)),
    )
  )
    serveInTurn(
      e,
      served.filter((peer) => !depends(e, peer)),
    );
}

/** Says whether there is room for more. */
function serveInTurn(e: RelayEngine, children: readonly string[]): boolean {
  let idle = 0;
  const after = children.findIndex((peer) => peer > e.served);
  const first = after < 0 ? children.length : after;
  for (let turn = first; turn < first + MAX_FRAMES; turn++) {
    const peer = children[turn % children.length];
    if (idle >= children.length || peer === undefined) return true;
    if (!hasDataFor(e, peer)) {
      idle += 1;
    } else if (e.pacer.isReady(e.now)) {
      idle = 0;
      sendFragment(e, peer);
      e.served = peer;
    } else {
      e.pacerBlocks = true;
      return false;
    }
  }
  // More could go out: go on at the next event, which is asked for at once.
  e.nextTick = e.now;
  return false;
}

function depends(e: RelayEngine, peer: string): boolean {
  const subscribed = (e.links.get(peer)?.downstream.subscriptions.length ?? 0) > 0;
  return subscribed || [...e.activeChildren.values()].includes(peer);
}

function serves(e: RelayEngine, peer: string): boolean {
  const link = e.links.get(peer);
  return (
    link !== undefined && link.isReady && (e.children.has(peer) || link.closingAt !== undefined)
  );
}

function hasDataFor(e: RelayEngine, peer: string): boolean {
  const limit = e.config.linkLimitBytes - RESERVE_OF_DATA;
  for (;;) {
    const link = e.links.get(peer);
    if (!link) return false;
    const { sending } = link;
    if (sending) {
      const length =
        Math.min(sending.bytes.length - sending.offset, e.fragment) + DATA_HEADER_LENGTH;
      return link.inFlight === 0 || link.inFlight + length <= limit;
    }
    // A statement goes before the data that it is about.
    if (isBehindOnStatements(e, peer) || link.inFlight > limit) return false;
    const next = link.downstream.next(e.ring, e.now);
    if (!next) return false;
    const held = e.ring.get(next.object);
    if (next.type === "chunk") {
      const bytes = held?.chunk(next.chunk);
      if (!bytes) return false;
      const { object, chunk, stripe } = next;
      link.sending = { next, object, chunk, stripe, bytes, offset: 0 };
    } else {
      link.downstream.sent(next);
      if (next.type === "unavailable") send(e, peer, { type: "unavailable", object: next.object });
      else if (held) sendStatement(e, peer, held.signed);
    }
  }
}

function sendFragment(e: RelayEngine, peer: string): void {
  const link = e.links.get(peer);
  const sending = link?.sending;
  if (!link || !sending) return;
  const { object, chunk, offset, stripe } = sending;
  const end = Math.min(sending.bytes.length, offset + e.fragment);
  const part = sending.bytes.subarray(offset, end);
  const bytes = encodeFrame({ type: "data", object, chunk, offset, stripe, bytes: part });
  link.inFlight += bytes.length;
  e.pacer.take(wireCost(bytes.length), e.now);
  e.counters.bytesToPeers += end - offset;
  if (end < sending.bytes.length) {
    sending.offset = end;
  } else {
    link.sending = undefined;
    link.downstream.sent(sending.next);
  }
  e.commands.push({ type: "send_frame", peer, bytes });
}

function isBehindOnStatements(e: RelayEngine, peer: string): boolean {
  const subscriptions = e.links.get(peer)?.downstream.subscriptions ?? [];
  return subscriptions.some((s) => e.trackOf(s.track)?.log.at(s.nextStatement) !== undefined);
}

function sendStatements(e: RelayEngine, peer: string): void {
  const limit = e.config.linkLimitBytes - RESERVE_OF_STATEMENTS;
  const link = e.links.get(peer);
  if (!link || !serves(e, peer)) return;
  for (const { track: index, nextStatement } of [...link.downstream.subscriptions]) {
    const log = e.trackOf(index)?.log;
    let place = nextStatement;
    for (let entry = log?.at(place); entry; entry = log?.at(place)) {
      if (link.inFlight > 0 && link.inFlight + entry.statement.encoded.length > limit) break;
      for (const bytes of statementFrames(entry.statement)) {
        link.inFlight += bytes.length;
        e.pacer.take(wireCost(bytes.length), e.now);
        e.commands.push({ type: "send_frame", peer, bytes });
      }
      link.downstream.stated(index, place, entry.next);
      place = entry.next;
    }
  }
}

export function sendStatement(e: RelayEngine, peer: string, statement: SignedStatement): void {
  const link = e.links.get(peer);
  if (!link) return;
  link.outbox.push(...statementFrames(statement));
  flushOutbox(e, peer);
}

function statementFrames({ encoded }: SignedStatement): Uint8Array<ArrayBuffer>[] {
  const frames = [];
  for (let offset = 0; offset < encoded.length; offset += CHUNK_SIZE) {
    const bytes = encoded.subarray(offset, offset + CHUNK_SIZE);
    frames.push(encodeFrame({ type: "statement", offset, total: encoded.length, bytes }));
  }
  return frames;
}
