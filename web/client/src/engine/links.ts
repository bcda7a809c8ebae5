/** Who is linked, greeted, and alive. */
import {
  decodePing,
  encodeFrame,
  encodePing,
  FrameError,
  VERSIONS,
  type Frame,
  type Hello,
} from "./frame.js";
import { Link } from "./link.js";
import { Liveness } from "./liveness.js";
import type { RelayEngine } from "./relay_engine.js";
import { sendStatement } from "./serving.js";
import { inOrder, type LinkSide, type LinkState } from "./types.js";

const CLOSING_GRACE = 10_000;
const SEPARATION = 60_000;
const RETRY = { first: 1_000, most: 8_000 };
const GREETING_PATIENCE = 2_000;
const MAX_OUTBOX = 256;

export function syncLinks(e: RelayEngine): void {
  const wanted = wantedLinks(e);
  for (const [peer] of inOrder(e.links)) if (!wanted.has(peer)) closeUnwanted(e, peer);
  for (const [peer, side] of inOrder(wanted)) {
    const link = e.links.get(peer);
    if (!link) {
      openLink(e, peer, side);
      continue;
    }
    link.closingAt = undefined;
    if (link.side !== side && link.phase !== "up") {
      e.commands.push({ type: "disconnect", peer });
      openLink(e, peer, side);
    }
  }
}

function wantedLinks(e: RelayEngine): Map<string, LinkSide> {
  const wanted = new Map<string, LinkSide>([...e.children].map((peer) => [peer, "await"]));
  for (const track of e.tracks)
    for (const peer of track.stripes.flatMap((stripe) => stripe.peers())) {
      const offers = !e.children.has(peer) || e.config.peer < peer;
      wanted.set(peer, offers ? "offer" : "await");
    }
  wanted.delete(e.config.peer);
  for (const peer of e.separated.keys()) wanted.delete(peer);
  return wanted;
}

function openLink(e: RelayEngine, peer: string, side: LinkSide): void {
  e.links.set(peer, new Link(side, e.now));
  e.commands.push({ type: "connect", peer, side });
}

function closeUnwanted(e: RelayEngine, peer: string): void {
  const link = e.links.get(peer);
  if (!link) return;
  const inUse = link.downstream.subscriptions.length > 0;
  link.closingAt ??= inUse ? e.now + CLOSING_GRACE : e.now;
  if (inUse && e.now < link.closingAt) return;
  if (link.phase === "up") {
    send(e, peer, { type: "bye", reason: "not needed any more" });
    reportLink(e, peer, "closed", "not assigned any more");
  }
  forgetLink(e, peer);
  e.links.delete(peer);
  e.commands.push({ type: "disconnect", peer });
}

export function tendLinks(e: RelayEngine): void {
  for (const [peer, until] of [...e.separated]) if (e.now >= until) e.separated.delete(peer);
  for (const [peer, link] of inOrder(e.links)) {
    const nonce = e.random();
    if (link.phase === "up") {
      tendLink(e, peer, link, nonce);
    } else if (link.phase !== "opening" && e.now >= link.phase.until) {
      link.reset("opening", e.now);
      e.commands.push({ type: "connect", peer, side: link.side });
    }
  }
}

function tendLink(e: RelayEngine, peer: string, link: Link, nonce: bigint): void {
  if (link.health(e.now) === "dead") {
    failLink(e, peer, "dead", "nothing was heard for four seconds");
  } else if (!link.greeted && e.now >= link.since + GREETING_PATIENCE) {
    // Without it, nothing can be asked for: a link that lost it is of no use.
    failLink(e, peer, "dead", "no Hello came");
  } else {
    link.liveness.setSource(e.tracks.some((track) => track.isHadFrom(peer)));
    const bytes = link.liveness.takePing(nonce, e.now);
    if (bytes) e.commands.push({ type: "send_ping", peer, bytes });
  }
}

export function onLinkUp(e: RelayEngine, peer: string): void {
  const link = e.links.get(peer);
  if (!link) {
    // Nobody wants it any more: the shell was quicker than the command to give it up.
    e.commands.push({ type: "disconnect", peer });
    return;
  }
  link.reset("up", e.now);
  link.wasUp = true;
  link.attempts = 0;
  link.liveness = new Liveness(e.now);
  reportLink(e, peer, "up", "");
  const { peer: self, channel } = e.config;
  send(e, peer, {
    type: "hello",
    minVersion: VERSIONS.min,
    maxVersion: VERSIONS.max,
    peer: self,
    channel,
  });
  if (e.master) sendStatement(e, peer, e.master);
  e.dirty = true;
}

export function onLinkFailed(e: RelayEngine, peer: string, reason: string): void {
  if (!e.links.has(peer)) return;
  retryLink(e, peer);
  reportLink(e, peer, "failed", reason);
}

export function onLinkDown(e: RelayEngine, peer: string, reason: "closed" | "lost"): void {
  if (!e.links.has(peer)) return;
  retryLink(e, peer);
  if (reason === "closed") reportLink(e, peer, "closed", "closed over there");
  else reportLink(e, peer, "dead", "the transport lost it");
}

/** Ends a link for a cause that this peer saw. */
export function failLink(e: RelayEngine, peer: string, state: LinkState, detail: string): void {
  if (!e.links.has(peer)) return;
  e.commands.push({ type: "disconnect", peer });
  reportLink(e, peer, state, detail);
  if (state === "corrupt" || state === "invalid") {
    e.separated.set(peer, e.now + SEPARATION);
    forgetLink(e, peer);
    e.links.delete(peer);
  } else {
    retryLink(e, peer);
  }
  e.dirty = true;
}

/** A link is not there any more, and is tried again while it is wanted. */
function retryLink(e: RelayEngine, peer: string): void {
  forgetLink(e, peer);
  const link = e.links.get(peer);
  if (!link) return;
  const pause = Math.min(RETRY.first * 2 ** Math.min(link.attempts, 8), RETRY.most);
  link.attempts += 1;
  if (link.side === "offer") {
    link.reset({ until: e.now + pause }, e.now);
  } else {
    // Waiting costs nothing, so it begins again at once.
    link.reset("opening", e.now);
    e.commands.push({ type: "connect", peer, side: "await" });
  }
  e.dirty = true;
}

/** Nothing is had from a peer any more. */
function forgetLink(e: RelayEngine, peer: string): void {
  for (const track of e.tracks) {
    track.stale = track.stale.filter((known) => known.peer !== peer);
    for (const stripe of track.stripes) {
      stripe.subscribed.delete(peer);
      stripe.repairingPeers.delete(peer);
    }
  }
}

export function reportLink(e: RelayEngine, peer: string, state: LinkState, detail: string): void {
  e.commands.push({ type: "report_link", peer, state, detail });
}

export function onHello(e: RelayEngine, peer: string, hello: Hello): void {
  const overlap = hello.minVersion <= VERSIONS.max && hello.maxVersion >= VERSIONS.min;
  const link = e.links.get(peer);
  if (hello.peer !== peer || hello.channel !== e.config.channel) {
    failLink(e, peer, "invalid", "it names another peer or channel");
  } else if (!overlap) {
    send(e, peer, { type: "bye", reason: "no common protocol version" });
    failLink(e, peer, "invalid", "no common protocol version");
  } else if (link) {
    link.greeted = true;
    e.dirty = true;
  }
}

export function onBye(e: RelayEngine, peer: string, reason: string): void {
  e.commands.push({ type: "disconnect", peer });
  retryLink(e, peer);
  reportLink(e, peer, "closed", reason);
}

export function onPing(e: RelayEngine, peer: string, bytes: Uint8Array): void {
  const link = e.links.get(peer);
  if (link?.phase !== "up") return;
  if (link.health(e.now) !== "alive") e.dirty = true;
  link.liveness.onBytes(e.now);
  try {
    const { type, nonce } = decodePing(bytes);
    if (type === "pong") link.liveness.onPong(nonce, e.now);
    else if (link.controlAllowance.tryTake(1, e.now))
      e.commands.push({ type: "send_ping", peer, bytes: encodePing({ type: "pong", nonce }) });
    else failLink(e, peer, "invalid", "too many pings");
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    failLink(e, peer, "invalid", error.message);
  }
}

/** What a child's transport has taken is a sign of life from it; a source shows life by what it brings. */
export function onBuffered(e: RelayEngine, peer: string, bytes: number): void {
  const link = e.links.get(peer);
  if (!link) return;
  if (bytes < link.inFlight && !link.liveness.isSource) {
    if (link.health(e.now) !== "alive") e.dirty = true;
    link.liveness.onBytes(e.now);
  }
  link.inFlight = bytes;
}

/** Sends a small frame, at once or as soon as there is room. */
export function send(e: RelayEngine, peer: string, frame: Frame): void {
  const link = e.links.get(peer);
  if (link?.phase !== "up") return;
  link.outbox.push(encodeFrame(frame));
  if (link.outbox.length > MAX_OUTBOX) failLink(e, peer, "dead", "it takes nothing any more");
  else flushOutbox(e, peer);
}

export function flushOutbox(e: RelayEngine, peer: string): void {
  const link = e.links.get(peer);
  if (link?.phase !== "up") return;
  for (let bytes = link.outbox[0]; bytes; bytes = link.outbox[0]) {
    if (link.inFlight + bytes.length > e.config.linkLimitBytes) return;
    link.outbox.shift();
    link.inFlight += bytes.length;
    e.commands.push({ type: "send_frame", peer, bytes });
  }
}
