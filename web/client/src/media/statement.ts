/**
 * What a signer says: headers and descriptors, with their signatures.
 *
 * A statement is decoded only when a trusted key signed its exact bytes; the bytes are kept and passed on as
 * they came. Hashing and checking are synchronous, so that the relay engine stays a pure function of its events.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha256 } from "@noble/hashes/sha2.js";
import * as wire from "../gen/espalier/wire/v1/wire_pb.js";
import * as limits from "./limits.js";
import { initKey, type ByteRange, type ObjectKey } from "./object.js";

export type TrackKind = "variant" | "audio" | "video" | "subtitles";

export interface MasterTrack {
  readonly index: number;
  readonly name: string;
  readonly uri: string;
  readonly kind: TrackKind;
  readonly group: string;
  readonly playsWith: readonly string[];
  readonly defaultRendition: boolean;
  readonly bandwidthBps: number;
}

export interface MasterHeader {
  readonly type: "master";
  readonly revision: number;
  readonly tracks: readonly MasterTrack[];
  readonly playlist: string;
}

export interface TrackHeader {
  readonly type: "track";
  readonly track: number;
  readonly epoch: number;
  readonly fromSequence: bigint;
  readonly targetMs: number;
  readonly lines: readonly string[];
  readonly windowSegments: number;
  readonly endSequence: bigint | undefined;
}

export interface Descriptor {
  readonly type: "object";
  readonly key: ObjectKey;
  readonly length: number;
  readonly chunkHashes: Uint8Array;
  readonly durationMs: number;
  readonly programDateTimeMs: number | undefined;
  readonly lines: readonly string[];
  readonly keyLines: readonly string[];
  readonly initSequence: bigint | undefined;
  readonly discontinuitySequence: bigint;
  readonly uri: string;
  readonly byteRange: ByteRange | undefined;
}

export type Statement = MasterHeader | TrackHeader | Descriptor;

/** Why a statement was refused. */
export type StatementFault = "too_long" | "encoding" | "untrusted_key" | "signature" | "invalid";

/** A statement that is not accepted. */
export class StatementError extends Error {
  constructor(
    readonly fault: StatementFault,
    detail: string,
  ) {
    super(detail);
    this.name = "StatementError";
  }
}

/** A statement that a trusted key signed, and the bytes in which it travels. */
export interface SignedStatement {
  readonly encoded: Uint8Array;
  readonly payload: Uint8Array;
  readonly statement: Statement;
}

/** Ed25519 public keys by their ids, in hexadecimal digits. */
export type TrustedKeys = ReadonlyMap<string, Uint8Array>;

const DOMAIN = new TextEncoder().encode("espalier.statement.v1\0");
const HASH_LENGTH = 32;

export function hex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** The id by which statements name the key that signed them. */
export function keyId(publicKey: Uint8Array): string {
  return hex(sha256(publicKey).subarray(0, 8));
}

export function trustedKeys(publicKeys: Iterable<Uint8Array>): TrustedKeys {
  return new Map([...publicKeys].map((key) => [keyId(key), key]));
}

export function hashOf(bytes: Uint8Array): Uint8Array {
  return sha256(bytes);
}

/** Reads an encoded `Signed`, and checks it. Throws a {@link StatementError}. */
export function decodeSigned(encoded: Uint8Array, trusted: TrustedKeys): SignedStatement {
  if (encoded.length > limits.MAX_SIGNED_LEN)
    throw new StatementError(
      "too_long",
      `${encoded.length} bytes are more than a statement may have`,
    );
  const { payload, signature, keyId: id } = read(() => fromBinary(wire.SignedSchema, encoded));
  return fromParts(payload, signature, id, trusted);
}

/** Checks a statement that came in its parts, as a feed delivers it. */
export function fromParts(
  payload: Uint8Array,
  signature: Uint8Array,
  id: Uint8Array,
  trusted: TrustedKeys,
): SignedStatement {
  if (payload.length > limits.MAX_STATEMENT_LEN)
    throw new StatementError(
      "too_long",
      `${payload.length} bytes are more than a statement may have`,
    );
  if (signature.length !== 64)
    throw new StatementError("signature", "the signature does not match");
  if (id.length !== 8) throw new StatementError("encoding", "it is not encoded as a statement");
  const key = trusted.get(hex(id));
  if (!key)
    throw new StatementError("untrusted_key", `signed with key ${hex(id)}, which is not trusted`);
  if (!verifies(key, payload, signature))
    throw new StatementError("signature", "the signature does not match");
  const statement = fromWire(read(() => fromBinary(wire.StatementSchema, payload)));
  return { encoded: encodeSigned(payload, signature, id), payload, statement };
}

/** Writes a `Signed`, for the feed's statements, which come in their parts. */
export function encodeSigned(
  payload: Uint8Array,
  signature: Uint8Array,
  id: Uint8Array,
): Uint8Array {
  return toBinary(wire.SignedSchema, create(wire.SignedSchema, { payload, signature, keyId: id }));
}

function verifies(key: Uint8Array, payload: Uint8Array, signature: Uint8Array): boolean {
  const signed = new Uint8Array(DOMAIN.length + payload.length);
  signed.set(DOMAIN);
  signed.set(payload, DOMAIN.length);
  try {
    return ed25519.verify(signature, signed, key, { zip215: false });
  } catch {
    return false;
  }
}

function read<T>(decode: () => T): T {
  try {
    return decode();
  } catch {
    throw new StatementError("encoding", "it is not encoded as a statement");
  }
}

export function chunkCount(descriptor: Descriptor): number {
  return descriptor.chunkHashes.length / HASH_LENGTH;
}

/** The length of a chunk; undefined if the object does not have it. */
export function chunkLength(descriptor: Descriptor, index: number): number | undefined {
  const rest = descriptor.length - index * limits.CHUNK_SIZE;
  return rest > 0 ? Math.min(rest, limits.CHUNK_SIZE) : undefined;
}

export function chunkHash(descriptor: Descriptor, index: number): Uint8Array {
  return descriptor.chunkHashes.subarray(index * HASH_LENGTH, (index + 1) * HASH_LENGTH);
}

/** Says what is wrong with a chunk; undefined: nothing. */
export function chunkFault(
  descriptor: Descriptor,
  index: number,
  bytes: Uint8Array,
): string | undefined {
  const expected = chunkLength(descriptor, index);
  if (expected === undefined)
    return `chunk ${index} of an object that has ${chunkCount(descriptor)}`;
  if (bytes.length !== expected) return `chunk ${index} has ${expected} bytes, not ${bytes.length}`;
  if (!sameBytes(hashOf(bytes), chunkHash(descriptor, index)))
    return `chunk ${index} does not match its hash`;
  return undefined;
}

export function initOf(descriptor: Descriptor): ObjectKey | undefined {
  const { key, initSequence } = descriptor;
  return initSequence === undefined ? undefined : initKey(key.track, key.epoch, initSequence);
}

/** Where a run of chunks lies in the resource that holds the object. */
export function resourceRange(
  descriptor: Descriptor,
  first: number,
  count: number,
): ByteRange | undefined {
  const last = chunkLength(descriptor, first + count - 1);
  if (count < 1 || last === undefined) return undefined;
  const start = first * limits.CHUNK_SIZE;
  const end = (first + count - 1) * limits.CHUNK_SIZE + last;
  return { offset: (descriptor.byteRange?.offset ?? 0) + start, length: end - start };
}

function invalid(detail: string): never {
  throw new StatementError("invalid", detail);
}

function within(length: number, limit: number, name: string): void {
  if (length > limit) invalid(`${name} exceeds its limit`);
}

function textWithin(text: string, limit: number, name: string): void {
  const bytes = text.length * 3 <= limit ? 0 : new TextEncoder().encode(text).length;
  within(bytes, limit, name);
}

function fromWire(statement: wire.Statement): Statement {
  switch (statement.kind.case) {
    case "master":
      return masterFromWire(statement.kind.value);
    case "track":
      return headerFromWire(statement.kind.value);
    case "object":
      return descriptorFromWire(statement.kind.value);
    case undefined:
      return invalid("the statement says nothing that this version knows");
  }
}

function masterFromWire(master: wire.MasterHeader): MasterHeader {
  within(master.tracks.length, limits.MAX_TRACKS, "tracks");
  textWithin(master.playlist, limits.MAX_MASTER_LEN, "the master playlist");
  if (master.tracks.length === 0) invalid("tracks is missing");
  const tracks = master.tracks.map(trackFromWire);
  const names = new Set(tracks.map((track) => track.name));
  const indices = new Set(tracks.map((track) => track.index));
  if (names.size < tracks.length || indices.size < tracks.length)
    invalid("tracks (two alike) is malformed");
  return { type: "master", revision: master.revision, tracks, playlist: master.playlist };
}

const TRACK_KINDS: readonly (TrackKind | undefined)[] = [
  undefined,
  "variant",
  "audio",
  "video",
  "subtitles",
];

function trackFromWire(track: wire.Track): MasterTrack {
  const kind = TRACK_KINDS[track.kind] ?? invalid("track kind is missing");
  if (!/^[a-z0-9-]+$/.test(track.name)) invalid("track name is malformed");
  within(track.name.length, limits.MAX_TRACK_NAME_LEN, "track name");
  textWithin(track.group, limits.MAX_LINE_LEN, "group");
  within(track.playsWith.length, limits.MAX_TRACKS, "plays_with");
  for (const group of track.playsWith) textWithin(group, limits.MAX_LINE_LEN, "plays_with");
  return {
    index: trackIndex(track.index),
    name: track.name,
    uri: uriOf(track.uri),
    kind,
    group: track.group,
    playsWith: track.playsWith,
    defaultRendition: track.defaultRendition,
    bandwidthBps: Number(track.bandwidthBps),
  };
}

function headerFromWire(header: wire.TrackHeader): TrackHeader {
  if (header.targetDurationMs === 0) invalid("target duration is missing");
  within(header.targetDurationMs, limits.MAX_SEGMENT_MS, "target duration");
  return {
    type: "track",
    track: trackIndex(header.track),
    epoch: header.epoch,
    fromSequence: header.fromSequence,
    targetMs: header.targetDurationMs,
    lines: linesOf(header.lines, "lines"),
    windowSegments: header.windowSegments,
    endSequence: header.endSequence,
  };
}

function descriptorFromWire(object: wire.Descriptor): Descriptor {
  if (object.length > BigInt(limits.MAX_OBJECT_LEN)) invalid("length exceeds its limit");
  const length = Number(object.length);
  if (object.chunkHashes.length !== Math.ceil(length / limits.CHUNK_SIZE) * HASH_LENGTH)
    invalid("chunk hashes is malformed");
  if (object.durationUs > BigInt(limits.MAX_SEGMENT_MS) * 1000n)
    invalid("duration exceeds its limit");
  return {
    type: "object",
    key: objectFromWire(object.key ?? invalid("key is missing")) ?? invalid("key is malformed"),
    length,
    chunkHashes: object.chunkHashes,
    durationMs: Number(object.durationUs) / 1000,
    programDateTimeMs:
      object.programDateTimeMs === undefined ? undefined : Number(object.programDateTimeMs),
    lines: linesOf(object.lines, "lines"),
    keyLines: linesOf(object.keyLines, "key lines"),
    initSequence: object.initSequence,
    discontinuitySequence: object.discontinuitySequence,
    uri: uriOf(object.uri),
    byteRange: object.byteRange && rangeFromWire(object.byteRange, length),
  };
}

/** Reads a key; undefined: no object can have it. */
export function objectFromWire(key: wire.ObjectKey): ObjectKey | undefined {
  const kind = ([undefined, "segment", "init", "part"] as const)[key.kind];
  const { track, epoch, sequence, part } = key;
  if (!kind || track > limits.MAX_TRACK_INDEX || (kind !== "part" && part !== 0)) return undefined;
  return { track, epoch, kind, sequence, part };
}

const WIRE_KIND = { segment: 1, init: 2, part: 3 };

export function objectToWire(key: ObjectKey): wire.ObjectKey {
  return create(wire.ObjectKeySchema, { ...key, kind: WIRE_KIND[key.kind] as wire.ObjectKind });
}

function rangeFromWire(range: wire.ByteRange, length: number): ByteRange {
  const [offset, end] = [Number(range.offset), Number(range.offset + range.length)];
  if (Number(range.length) !== length || !Number.isSafeInteger(end))
    invalid("byte range is malformed");
  return { offset, length };
}

function trackIndex(index: number): number {
  within(index, limits.MAX_TRACK_INDEX, "track index");
  return index;
}

function uriOf(uri: string): string {
  textWithin(uri, limits.MAX_URI_LEN, "URI");
  return uri || invalid("URI is missing");
}

function linesOf(lines: string[], name: string): string[] {
  within(lines.length, limits.MAX_LINES, name);
  for (const line of lines) {
    textWithin(line, limits.MAX_LINE_LEN, name);
    if (!line.startsWith("#") || /[\r\n]/.test(line)) invalid(`${name} is malformed`);
  }
  return lines;
}
