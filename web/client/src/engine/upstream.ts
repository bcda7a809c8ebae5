/**
 * From whom to take a stripe: the local reflexes, as a pure function of what is known now. The table is that of
 * `peer/core/src/upstream.rs`.
 */
import type { Source } from "./types.js";

/** How a peer is as a source. `opening`: its link is being made, for the first time and not for too long. */
export type Condition = "opening" | "usable" | "silent" | "gone";

export interface Candidate {
  readonly peer: string;
  readonly condition: Condition;
  readonly repairing: boolean;
  readonly flowed: boolean;
}

export interface Facts {
  readonly assigned: Source | undefined;
  readonly source: Candidate | undefined;
  readonly standby: Candidate | undefined;
  readonly previous: Candidate | undefined;
  readonly previousRoot: boolean;
  readonly cdnFlowed: boolean;
}

export interface Decision {
  /** Be subscribed at these peers, and no others. */
  readonly subscribe: readonly string[];
  /** Take everything from the CDN as it comes. */
  readonly root: boolean;
  readonly active: Source | undefined;
  readonly flowing: boolean;
  readonly repairing: boolean;
  /** The source lives and repairs its own: wait for it, until the play-out deadline. */
  readonly patient: boolean;
  readonly keepPrevious: boolean;
}

export const UNDECIDED: Decision = {
  subscribe: [],
  root: false,
  active: undefined,
  flowing: false,
  repairing: false,
  patient: false,
  keepPrevious: false,
};

const canHelp = (candidate: Candidate | undefined): candidate is Candidate =>
  candidate?.condition === "usable" && !candidate.repairing;

export function decide(facts: Facts): Decision {
  const previous = facts.previous?.condition === "usable" ? facts.previous : undefined;
  const { assigned, source } = facts;
  if (assigned === undefined || assigned === "cdn" || !source) {
    return previous && !facts.cdnFlowed
      ? { ...fromPeer(previous, true), root: true }
      : fromCdn(facts);
  }
  switch (source.condition) {
    case "usable":
      return fromSource(source, previous, facts);
    case "silent":
      return besideSilent(source, facts);
    case "opening":
      if (previous) return fromPeer(previous, true);
      if (facts.previousRoot) return fromCdn(facts);
      return { ...UNDECIDED, active: { peer: source.peer } };
    case "gone":
      return previous ? fromPeer(previous, true) : fallBack(facts);
  }
}

function fromSource(source: Candidate, previous: Candidate | undefined, facts: Facts): Decision {
  if (previous && !source.flowed)
    return { ...fromPeer(previous, true), subscribe: [source.peer, previous.peer] };
  if (!previous && !source.flowed && facts.previousRoot)
    return { ...fromCdn(facts), subscribe: [source.peer] };
  return fromPeer(source, false);
}

function fromPeer(peer: Candidate, keepPrevious: boolean): Decision {
  return {
    subscribe: [peer.peer],
    root: false,
    active: { peer: peer.peer },
    flowing: peer.flowed && !peer.repairing,
    repairing: peer.repairing,
    patient: peer.repairing,
    keepPrevious,
  };
}

/** The source was heard less than four seconds ago: it may come back, so its subscription stays. */
function besideSilent(source: Candidate, facts: Facts): Decision {
  const helper = facts.standby;
  if (canHelp(helper))
    return {
      ...fromPeer(helper, false),
      subscribe: [source.peer, helper.peer],
      repairing: !helper.flowed,
    };
  return { ...repairedByCdn(facts), subscribe: [source.peer] };
}

function fallBack(facts: Facts): Decision {
  const helper = facts.standby;
  return canHelp(helper)
    ? { ...fromPeer(helper, false), repairing: !helper.flowed }
    : repairedByCdn(facts);
}

function repairedByCdn(facts: Facts): Decision {
  // A standby that repairs stays subscribed: it may be the first to find a source.
  const waiting =
    facts.standby?.condition === "usable" && facts.standby.flowed ? [facts.standby.peer] : [];
  return { ...fromCdn(facts), subscribe: waiting, repairing: !facts.cdnFlowed };
}

function fromCdn(facts: Facts): Decision {
  return { ...UNDECIDED, root: true, active: "cdn", flowing: facts.cdnFlowed };
}
