/** Plays `proto/conformance/relay.json`, as `peer/core/tests/conformance` does: the two engines cannot drift apart. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { decodeFrame, encodeFrame } from "../src/engine/frame.js";
import { RelayEngine } from "../src/engine/relay_engine.js";
import {
  browserConfig,
  type Command,
  type Event,
  type Publication,
  type Source,
} from "../src/engine/types.js";
import { keyText, type ObjectKey, type ObjectKind } from "../src/media/object.js";
import { trustedKeys } from "../src/media/statement.js";

const suite = JSON.parse(
  readFileSync(new URL("../../../proto/conformance/relay.json", import.meta.url), "utf8"),
);
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

function content(key: ObjectKey, from: number, length: number): Uint8Array {
  const start = from + 13 * Number(key.sequence);
  return Uint8Array.from({ length }, (_, index) => (start + index) % 251);
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

function key(text: string): ObjectKey {
  const [track, epoch, kind, sequence, part] = text.split("/") as [
    string,
    string,
    ObjectKind,
    string,
    string,
  ];
  return { track: +track, epoch: +epoch, kind, sequence: BigInt(sequence), part: +part };
}

const source = (value: string | null): Source | undefined =>
  value === null ? undefined : value === "cdn" ? "cdn" : { peer: value };

function frame(event: any): Uint8Array {
  if (event.hex !== undefined) return unhex(event.hex);
  const { chunk, offset, length, stripe, corrupt } = event.data;
  const object = key(event.data.object);
  const bytes = content(object, chunk * 61_440 + offset, length);
  if (corrupt) bytes[0] = bytes[0]! ^ 1;
  return encodeFrame({ type: "data", object, chunk, offset, stripe, bytes });
}

function fetchUpdate(event: any): any {
  if (event.update === "started") return { type: "started", partial: event.partial };
  if (event.update === "body")
    return { type: "body", bytes: content(key(event.object), event.from, event.length) };
  return { type: event.update, reason: "it failed" };
}

function feed(event: any): any {
  if (event.feed === "statement")
    return { type: "statement", encoded: unhex(suite.statements[event.statement]) };
  if (event.feed === "announce")
    return { type: "announce", object: key(event.object), uri: event.uri, byteRange: undefined };
  return { type: event.feed };
}

function eventOf(event: any): Event {
  const { type, peer } = event;
  switch (type) {
    case "welcome":
      return { type, incarnation: 1n, keys: trustedKeys([unhex(suite.public_key)]) };
    case "assignment":
      return {
        type,
        assignment: {
          generation: { incarnation: 1n, term: 1n, index: BigInt(event.index) },
          tracks: event.tracks.map((track: any) => ({
            ...track,
            source: source(track.source),
            standby: source(track.standby),
            makeBeforeBreak: track.make_before_break,
          })),
          children: event.children,
          cdnLease: undefined,
          uploadBps: event.upload_bps,
        },
      };
    case "link_failed":
      return { type, peer, reason: "no way" };
    case "link_down":
      return { type, peer, reason: "lost" };
    case "frame":
      return { type, peer, bytes: frame(event) };
    case "statement_frame": {
      const bytes = unhex(suite.statements[event.statement]);
      const part = encodeFrame({ type: "statement", offset: 0, total: bytes.length, bytes });
      return { type: "frame", peer, bytes: part };
    }
    case "ping":
      return { type, peer, bytes: unhex(event.hex) };
    case "feed":
      return { type, event: feed(event) };
    case "fetch":
      return { type, id: event.id, update: fetchUpdate(event) };
    case "player_wants":
      return { type, object: key(event.object) };
    default:
      return event;
  }
}

const shownSource = (from: Source | undefined) =>
  from === undefined ? "-" : from === "cdn" ? "cdn" : from.peer;

function shownFrame(bytes: Uint8Array): string {
  const read = decodeFrame(bytes);
  if (read.type !== "data") return hex(bytes);
  const { object, chunk, offset, stripe, bytes: data } = read;
  const whole = same(content(object, chunk * 61_440 + offset, data.length), data);
  return `data ${keyText(object)} ${chunk} ${offset} ${stripe} ${data.length} ${whole}`;
}

function shownPublication(publication: Publication): string {
  switch (publication.type) {
    case "header": {
      const { header } = publication;
      return header.type === "master"
        ? `header master ${header.revision}`
        : `header track ${header.track} ${header.fromSequence}`;
    }
    case "listed":
      return `listed ${keyText(publication.descriptor.key)}`;
    case "chunk": {
      const { object, index, bytes } = publication;
      const whole = same(content(object, index * 61_440, bytes.length), bytes);
      return `chunk ${keyText(object)} ${index} ${bytes.length} ${whole}`;
    }
    case "complete": {
      const { object, at, from } = publication;
      return `complete ${keyText(object)} ${at} ${from.parentBytes} ${from.standbyBytes} ${from.cdnBytes}`;
    }
    case "unverified": {
      const length = publication.body.reduce((sum, bytes) => sum + bytes.length, 0);
      return `unverified ${keyText(publication.object)} ${length}`;
    }
    case "evicted":
      return `evicted ${keyText(publication.object)}`;
    case "bypass":
      return `bypass ${publication.track} ${publication.active}`;
  }
}

function shown(command: Command): string {
  switch (command.type) {
    case "connect":
      return `connect ${command.peer} ${command.side}`;
    case "disconnect":
      return `disconnect ${command.peer}`;
    case "send_frame":
      return `frame ${command.peer} ${shownFrame(command.bytes)}`;
    case "send_ping":
      return `ping ${command.peer} ${hex(command.bytes)}`;
    case "fetch": {
      const { id, object, uri, range } = command;
      return `fetch ${id} ${keyText(object)} ${uri} ${range ? `${range.offset}+${range.length}` : "-"}`;
    }
    case "cancel_fetch":
      return `cancel_fetch ${command.id}`;
    case "publish":
      return `publish ${shownPublication(command.publication)}`;
    case "acknowledge":
      return `acknowledge ${command.generation.index}`;
    case "report_link":
      return `link ${command.peer} ${command.state}`;
    case "report_source":
      return `source ${command.track} ${command.stripe} ${shownSource(command.source)} ${command.state}`;
    case "report_tracks_wanted":
      return `wants ${command.tracks.join()}`;
    default:
      return command.type;
  }
}

test.each(suite.cases.map((one: any) => [one.name, one]))("%s", (_, one: any) => {
  const engine = new RelayEngine(browserConfig(one.peer, "demo", false));
  for (const [place, step] of one.steps.entries()) {
    engine.handle(eventOf(step.event), step.at);
    const outputs = engine.commands.splice(0).map(shown);
    expect(outputs, `step ${place} at ${step.at}: ${JSON.stringify(step.event)}`).toEqual(
      step.expect,
    );
  }
});
