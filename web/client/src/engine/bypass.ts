/**
 * What to do when no statements come: after one target duration the player reads the CDN by itself, and nothing of
 * that is relayed. In a browser the player is at hand, so the engine only says when.
 */
import type { RelayEngine } from "./relay_engine.js";
import type { Track } from "./track.js";

export function tendBypass(e: RelayEngine, track: Track): void {
  const late = track.due !== undefined && e.now >= track.due + track.target;
  const known = track.header !== undefined && track.index !== undefined;
  const assignedAt = Math.max(...track.stripes.map((stripe) => stripe.assignedAt));
  const never = !track.rhythm && e.now >= assignedAt + track.target * 2;
  if (!track.bypass && known && (late || never)) setBypass(e, track, true);
}

/** Says it once, when it changes. */
export function setBypass(e: RelayEngine, track: Track, active: boolean): void {
  if (track.bypass === active) return;
  track.bypass = active;
  e.publish({ type: "bypass", track: track.name, active });
}
