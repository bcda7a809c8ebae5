/**
 * The frames that two linked peers exchange, as `proto/WIRE.md` lays down.
 *
 * A frame is one message of the reliable channel: a kind byte and a body. A ping is one message of the
 * unordered channel. No bytes, from whomever, make {@link decodeFrame} do anything but return a frame or throw
 * a {@link FrameError}. It checks shape and limits only; order and sense are the engine's.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageShape,
} from "@bufbuild/protobuf";
import * as wire from "../gen/espalier/wire/v1/wire_pb.js";
import { CHUNK_SIZE, MAX_CHUNKS, MAX_SIGNED_LEN, MAX_TRACK_INDEX } from "../media/limits.js";
import type { ObjectKey } from "../media/object.js";
import { objectFromWire, objectToWire } from "../media/statement.js";

export const DATA_HEADER_LENGTH = 32;
export const STATEMENT_HEADER_LENGTH = 9;
export const MAX_FRAME = CHUNK_SIZE + DATA_HEADER_LENGTH;
export const MAX_CONTROL_FRAME = 4_096;
export const MAX_RANGES = 64;
export const MAX_STRIPES = 16;
export const MAX_REASON = 256;
/** The protocol versions that this implementation speaks. */
export const VERSIONS = { min: 1, max: 1 } as const;
const MAX_CHANNEL = 63;

export interface Cursor {
  readonly object: ObjectKey;
  readonly chunk: number;
}

export interface ChunkRun {
  readonly first: number;
  readonly count: number;
}

export interface Subscribe {
  readonly type: "subscribe";
  readonly track: number;
  readonly stripe: number;
  readonly stripes: number;
  readonly cursor: Cursor | undefined;
}

export interface Hello {
  readonly type: "hello";
  readonly minVersion: number;
  readonly maxVersion: number;
  readonly peer: string;
  readonly channel: string;
}

export interface StatementPart {
  readonly type: "statement";
  readonly offset: number;
  readonly total: number;
  readonly bytes: Uint8Array;
}

export interface Data {
  readonly type: "data";
  readonly object: ObjectKey;
  readonly chunk: number;
  readonly offset: number;
  readonly stripe: number;
  readonly bytes: Uint8Array;
}

export type Frame =
  | Hello
  | StatementPart
  | Data
  | Subscribe
  | { readonly type: "unsubscribe"; readonly track: number; readonly stripe: number }
  | {
      readonly type: "cancel";
      readonly object: ObjectKey;
      readonly first: number;
      readonly count: number;
    }
  | { readonly type: "request"; readonly object: ObjectKey; readonly ranges: readonly ChunkRun[] }
  | { readonly type: "unavailable"; readonly object: ObjectKey }
  | {
      readonly type: "upstream";
      readonly track: number;
      readonly stripe: number;
      readonly repairing: boolean;
      readonly expectedMs: number;
    }
  | { readonly type: "bye"; readonly reason: string };

/** A message that is no frame. The link is to be closed. */
export class FrameError extends Error {
  constructor(detail: string) {
    super(detail);
    this.name = "FrameError";
  }
}

const KINDS = [
  "hello",
  "statement",
  "data",
  "subscribe",
  "unsubscribe",
  "cancel",
  "request",
  "unavailable",
  "upstream",
  "bye",
] as const;

/** Reads one message of the reliable channel. Byte strings are views of it. Throws a {@link FrameError}. */
export function decodeFrame(message: Uint8Array): Frame {
  const kind = message[0];
  if (kind === undefined) throw new FrameError("empty frame");
  const name = KINDS[kind - 1];
  if (!name) throw new FrameError(`unknown frame kind ${kind}`);
  const limit = name === "data" || name === "statement" ? MAX_FRAME : MAX_CONTROL_FRAME;
  if (message.length > limit) throw new FrameError(`frame of ${message.length} bytes`);
  switch (name) {
    case "hello":
      return hello(body(wire.HelloSchema, message));
    case "statement":
      return statement(message);
    case "data":
      return data(message);
    case "subscribe":
      return subscribe(body(wire.SubscribeSchema, message));
    case "unsubscribe": {
      const read = body(wire.UnsubscribeSchema, message);
      return { type: name, track: track(read.track), stripe: stripe(read.stripe) };
    }
    case "cancel": {
      const read = body(wire.CancelSchema, message);
      if (read.chunks > MAX_CHUNKS) throw bad("chunks");
      return {
        type: name,
        object: object(read.object),
        first: chunk(read.firstChunk),
        count: read.chunks,
      };
    }
    case "request":
      return request(body(wire.RequestSchema, message));
    case "unavailable":
      return { type: name, object: object(body(wire.UnavailableSchema, message).object) };
    case "upstream": {
      const { repairing, expectedMs, ...read } = body(wire.UpstreamSchema, message);
      return {
        type: name,
        track: track(read.track),
        stripe: stripe(read.stripe),
        repairing,
        expectedMs,
      };
    }
    case "bye": {
      const { reason } = body(wire.ByeSchema, message);
      if (new TextEncoder().encode(reason).length > MAX_REASON) throw bad("reason");
      return { type: name, reason };
    }
  }
}

function bad(field: string): FrameError {
  return new FrameError(`bad field: ${field}`);
}

function body<D extends DescMessage>(schema: D, message: Uint8Array): MessageShape<D> {
  try {
    return fromBinary(schema, message.subarray(1));
  } catch {
    throw new FrameError("malformed body");
  }
}

function hello(message: wire.Hello): Frame {
  const { minVersion, maxVersion, peer, channel } = message;
  if (minVersion === 0 || minVersion > maxVersion) throw bad("versions");
  if (!channel || new TextEncoder().encode(channel).length > MAX_CHANNEL) throw bad("channel");
  if (!isPeerId(peer)) throw bad("peer");
  return { type: "hello", minVersion, maxVersion, peer, channel };
}

/** A peer's id is 16 lower-case hexadecimal digits. */
export function isPeerId(text: string): boolean {
  return /^[0-9a-f]{16}$/.test(text);
}

function statement(message: Uint8Array): Frame {
  if (message.length < STATEMENT_HEADER_LENGTH) throw new FrameError("truncated frame");
  const view = viewOf(message);
  const [offset, total] = [view.getUint32(1), view.getUint32(5)];
  const bytes = message.subarray(STATEMENT_HEADER_LENGTH);
  if (bytes.length === 0) throw new FrameError("truncated frame");
  if (offset + bytes.length > total || total > MAX_SIGNED_LEN) throw bad("length");
  return { type: "statement", offset, total, bytes };
}

function data(message: Uint8Array): Frame {
  if (message.length <= DATA_HEADER_LENGTH) throw new FrameError("truncated frame");
  const view = viewOf(message);
  if (view.getUint8(3) !== 0) throw bad("reserved");
  const key = create(wire.ObjectKeySchema, {
    kind: view.getUint8(1) as wire.ObjectKind,
    track: view.getUint32(4),
    epoch: view.getUint32(8),
    sequence: view.getBigUint64(12),
    part: view.getUint32(20),
  });
  const offset = view.getUint32(28);
  const bytes = message.subarray(DATA_HEADER_LENGTH);
  if (offset + bytes.length > CHUNK_SIZE) throw bad("offset");
  return {
    type: "data",
    object: object(key),
    chunk: chunk(view.getUint32(24)),
    offset,
    stripe: stripe(view.getUint8(2)),
    bytes,
  };
}

function subscribe(message: wire.Subscribe): Frame {
  const { stripes } = message;
  const read = { track: track(message.track), stripe: stripe(message.stripe) };
  if (stripes === 0 || stripes > MAX_STRIPES || read.stripe >= stripes) throw bad("stripes");
  const cursor = message.cursor && {
    object: object(message.cursor.object),
    chunk: chunk(message.cursor.chunk),
  };
  if (cursor && cursor.object.track !== read.track) throw bad("cursor");
  return { type: "subscribe", ...read, stripes, cursor };
}

function request(message: wire.Request): Frame {
  const { ranges } = message;
  if (ranges.length === 0 || ranges.length > MAX_RANGES) throw bad("ranges");
  const run = (range: wire.ChunkRange): ChunkRun => {
    const first = chunk(range.first);
    if (range.count === 0 || range.count > MAX_CHUNKS - first) throw bad("ranges");
    return { first, count: range.count };
  };
  return { type: "request", object: object(message.object), ranges: ranges.map(run) };
}

function track(index: number): number {
  if (index > MAX_TRACK_INDEX) throw bad("track");
  return index;
}

function stripe(index: number): number {
  if (index >= MAX_STRIPES) throw bad("stripe");
  return index;
}

function chunk(index: number): number {
  if (index >= MAX_CHUNKS) throw bad("chunk");
  return index;
}

function object(key: wire.ObjectKey | undefined): ObjectKey {
  const read = key && objectFromWire(key);
  if (!read) throw bad("object");
  return read;
}

/** Writes a frame as one message. */
export function encodeFrame(frame: Frame): Uint8Array<ArrayBuffer> {
  switch (frame.type) {
    case "hello":
      return control(frame.type, wire.HelloSchema, create(wire.HelloSchema, frame));
    case "statement":
      return encodeStatement(frame);
    case "data":
      return encodeData(frame);
    case "subscribe": {
      const cursor = frame.cursor && {
        object: objectToWire(frame.cursor.object),
        chunk: frame.cursor.chunk,
      };
      return control(
        frame.type,
        wire.SubscribeSchema,
        create(wire.SubscribeSchema, {
          track: frame.track,
          stripe: frame.stripe,
          stripes: frame.stripes,
          ...(cursor ? { cursor } : {}),
        }),
      );
    }
    case "unsubscribe":
      return control(frame.type, wire.UnsubscribeSchema, create(wire.UnsubscribeSchema, frame));
    case "cancel":
      return control(
        frame.type,
        wire.CancelSchema,
        create(wire.CancelSchema, {
          object: objectToWire(frame.object),
          firstChunk: frame.first,
          chunks: frame.count,
        }),
      );
    case "request":
      return control(
        frame.type,
        wire.RequestSchema,
        create(wire.RequestSchema, {
          object: objectToWire(frame.object),
          ranges: [...frame.ranges],
        }),
      );
    case "unavailable":
      return control(
        frame.type,
        wire.UnavailableSchema,
        create(wire.UnavailableSchema, { object: objectToWire(frame.object) }),
      );
    case "upstream":
      return control(frame.type, wire.UpstreamSchema, create(wire.UpstreamSchema, frame));
    case "bye":
      return control(frame.type, wire.ByeSchema, create(wire.ByeSchema, frame));
  }
}

function framed(type: Frame["type"], header: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(header + payload.length);
  message[0] = KINDS.indexOf(type) + 1;
  message.set(payload, header);
  return message;
}

function control<D extends DescMessage>(
  type: Frame["type"],
  schema: D,
  message: MessageShape<D>,
): Uint8Array<ArrayBuffer> {
  return framed(type, 1, toBinary(schema, message));
}

function encodeStatement(frame: StatementPart): Uint8Array<ArrayBuffer> {
  const message = framed(frame.type, STATEMENT_HEADER_LENGTH, frame.bytes);
  const view = viewOf(message);
  view.setUint32(1, frame.offset);
  view.setUint32(5, frame.total);
  return message;
}

function encodeData(frame: Data): Uint8Array<ArrayBuffer> {
  const message = framed(frame.type, DATA_HEADER_LENGTH, frame.bytes);
  const view = viewOf(message);
  view.setUint8(1, { segment: 1, init: 2, part: 3 }[frame.object.kind]);
  view.setUint8(2, frame.stripe);
  view.setUint32(4, frame.object.track);
  view.setUint32(8, frame.object.epoch);
  view.setBigUint64(12, frame.object.sequence);
  view.setUint32(20, frame.object.part);
  view.setUint32(24, frame.chunk);
  view.setUint32(28, frame.offset);
  return message;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A message of the unordered channel. */
export interface Ping {
  readonly type: "ping" | "pong";
  readonly nonce: bigint;
}

export function decodePing(message: Uint8Array): Ping {
  if (message.length !== 9 || (message[0] !== 16 && message[0] !== 17))
    throw new FrameError("neither a ping nor a pong");
  return { type: message[0] === 16 ? "ping" : "pong", nonce: viewOf(message).getBigUint64(1) };
}

export function encodePing(ping: Ping): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(9);
  message[0] = ping.type === "ping" ? 16 : 17;
  viewOf(message).setBigUint64(1, ping.nonce);
  return message;
}
