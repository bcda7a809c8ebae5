/** What the orchestrator is told about sources. */
import type { Provenance } from "./ring_object.js";
import { reportLink } from "./links.js";
import type { RelayEngine } from "./relay_engine.js";
import type { Track } from "./track.js";
import { peerOf, sameSource } from "./types.js";

const LATE_OBJECTS = 2;
const LATE_REPORT_INTERVAL = 10_000;

export function reportSources(e: RelayEngine, track: Track): void {
  for (const [number, stripe] of track.stripes.entries()) {
    const source = stripe.decision.active;
    const state = track.state(stripe);
    const known = stripe.reported;
    if (!state || (known && known.state === state && sameSource(known.source, source))) continue;
    stripe.reported = { source, state };
    e.commands.push({
      type: "report_source",
      track: track.name,
      stripe: number,
      source,
      state,
      generation: e.generation,
    });
  }
}

/** A source that lives and cannot bring all in time is reported, after two objects in a row. */
export function judgeSource(
  e: RelayEngine,
  track: Track,
  number: number,
  from: Provenance,
  arrived: number,
): void {
  const stripe = track.stripe(number);
  const peer = peerOf(stripe.decision.active);
  if (peer === undefined) return;
  const begun = stripe.subscribed.get(peer)?.resumed;
  const answersFor = begun !== undefined && arrived >= begun + track.target;
  const steady = stripe.decision.flowing && peerOf(stripe.assigned.source) === peer;
  const total = from.parentBytes + from.standbyBytes + from.cdnBytes;
  if (!steady || !answersFor || from.parentBytes === total) {
    stripe.lateObjects = 0;
    return;
  }
  stripe.lateObjects += 1;
  const quiet =
    stripe.lateReported === undefined || e.now >= stripe.lateReported + LATE_REPORT_INTERVAL;
  if (stripe.lateObjects >= LATE_OBJECTS && quiet) {
    stripe.lateReported = e.now;
    reportLink(e, peer, "late", "chunks had to come from elsewhere in time");
  }
}
