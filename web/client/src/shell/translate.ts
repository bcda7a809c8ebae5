/** Between the API's messages and the engine's events and commands. It decides nothing. */
import { create } from "@bufbuild/protobuf";
import type { Command, Event, FeedEvent, HeldEdge, Source } from "../engine/types.js";
import * as common from "../gen/espalier/v1/common_pb.js";
import * as v1 from "../gen/espalier/v1/peer_pb.js";
import type { FeedMessage } from "../gen/espalier/v1/signer_pb.js";
import { encodeSigned, objectFromWire, trustedKeys } from "../media/statement.js";

function sourceFromWire(source: common.Source | undefined): Source | undefined {
  switch (source?.kind.case) {
    case "peer":
      return { peer: source.kind.value };
    case "cdn":
      return "cdn";
    case undefined:
      return undefined;
  }
}

export function sourceToWire(source: Source | undefined): common.Source | undefined {
  if (source === undefined) return undefined;
  return create(common.SourceSchema, {
    kind:
      source === "cdn"
        ? { case: "cdn", value: create(common.CdnSchema) }
        : { case: "peer", value: source.peer },
  });
}

export function welcomeEvent(welcome: v1.Welcome): Event {
  return {
    type: "welcome",
    incarnation: welcome.incarnation,
    keys: trustedKeys(welcome.publicKeys.filter((key) => key.length === 32)),
  };
}

export function assignmentEvent(assignment: v1.Assignment): Event | undefined {
  const { generation, cdnLease } = assignment;
  if (!generation) return undefined;
  return {
    type: "assignment",
    assignment: {
      generation,
      tracks: assignment.tracks.map((track) => ({
        track: track.track,
        stripe: track.stripe,
        stripes: Math.max(1, track.stripes),
        source: sourceFromWire(track.source),
        standby: sourceFromWire(track.standby),
        makeBeforeBreak: track.makeBeforeBreak,
      })),
      children: assignment.children,
      cdnLease: cdnLease && {
        rateBps: Number(cdnLease.rateBps),
        burstBytes: Number(cdnLease.burstBytes),
        lifetimeMs: cdnLease.lifetimeMs,
      },
      uploadBps: Number(assignment.uploadBps),
    },
  };
}

export function heldToWire(edges: readonly HeldEdge[]): v1.HeldEdge[] {
  return edges.map((edge) => {
    const [source, standby] = [sourceToWire(edge.source), sourceToWire(edge.standby)];
    return create(v1.HeldEdgeSchema, {
      track: edge.track,
      stripe: edge.stripe,
      children: [...edge.children],
      ...(source && { source }),
      ...(standby && { standby }),
    });
  });
}

export function feedEvent(message: FeedMessage): FeedEvent | undefined {
  const { kind } = message;
  switch (kind.case) {
    case "announce": {
      const object = kind.value.object && objectFromWire(kind.value.object);
      const range = kind.value.byteRange;
      if (!object) return undefined;
      return {
        type: "announce",
        object,
        uri: kind.value.uri,
        byteRange: range && { offset: Number(range.offset), length: Number(range.length) },
      };
    }
    case "statement": {
      const { payload, signature, keyId } = kind.value;
      return { type: "statement", encoded: encodeSigned(payload, signature, keyId) };
    }
    case "caughtUp":
      return { type: "caught_up" };
    case "originStatus":
    case undefined:
      return undefined;
  }
}

const LINK_STATES = { up: 1, failed: 2, dead: 3, corrupt: 4, late: 5, invalid: 6, closed: 7 };
const SOURCE_STATES = { flowing: 1, repairing: 2, bypass: 3 };

type Kind = v1.PeerMessage["kind"];

/** What a command tells the orchestrator; undefined: nothing. */
export function commandToWire(command: Command): Kind | undefined {
  switch (command.type) {
    case "acknowledge": {
      const generation = create(common.GenerationSchema, command.generation);
      return { case: "acknowledge", value: create(v1.AcknowledgeSchema, { generation }) };
    }
    case "report_link": {
      const { peer: neighbour, state, detail } = command;
      const value = create(v1.LinkEventSchema, { neighbour, state: LINK_STATES[state], detail });
      return { case: "linkEvent", value };
    }
    case "report_source": {
      const source = sourceToWire(command.source);
      const value = create(v1.SourceEventSchema, {
        track: command.track,
        stripe: command.stripe,
        state: SOURCE_STATES[command.state],
        generation: create(common.GenerationSchema, command.generation),
        ...(source && { source }),
      });
      return { case: "sourceEvent", value };
    }
    case "report_tracks_wanted":
      return {
        case: "wantTracks",
        value: create(v1.WantTracksSchema, { tracks: [...command.tracks] }),
      };
    default:
      return undefined;
  }
}
