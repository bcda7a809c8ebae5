/** Runs `proto/vectors/frames.json`, and hostile bytes, through the codec. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeFrame,
  decodePing,
  encodeFrame,
  encodePing,
  FrameError,
} from "../src/engine/frame.js";

const text = readFileSync(new URL("../../../proto/vectors/frames.json", import.meta.url), "utf8");
// Numbers beyond 2^53 are kept as texts, so that none is rounded.
const vectors = JSON.parse(text.replace(/: (\d{16,})/g, ': "$1"'));

const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));
const message = (vector: any) => {
  const tail = vector.append ? vector.append.byte.repeat(vector.append.count) : "";
  return unhex(vector.hex + tail);
};

const key = (object: any) => ({ ...object, sequence: BigInt(object.sequence) });

function expected(frame: any) {
  const { type, object, ranges, cursor, min_version, max_version, expected_ms, bytes, ...rest } =
    frame;
  return {
    type,
    ...rest,
    ...(object && { object: key(object) }),
    ...(ranges && { ranges: ranges.map(([first, count]: number[]) => ({ first, count })) }),
    ...(cursor !== undefined && {
      cursor: cursor ? { object: key(cursor.object), chunk: cursor.chunk } : undefined,
    }),
    ...(min_version && { minVersion: min_version, maxVersion: max_version }),
    ...(expected_ms !== undefined && { expectedMs: expected_ms }),
    ...(bytes !== undefined && { bytes: unhex(bytes) }),
  };
}

describe("vectors", () => {
  test.each(vectors.valid.map((v: any) => [v.name, v]))("%s", (_, vector: any) => {
    const frame = decodeFrame(message(vector));
    expect(frame).toEqual(expected(vector.frame));
    expect(Buffer.from(encodeFrame(frame)).toString("hex")).toBe(
      Buffer.from(message(vector)).toString("hex"),
    );
  });
  test.each(vectors.invalid.map((v: any) => [v.name, v]))("refused: %s", (_, vector: any) => {
    expect(() => decodeFrame(message(vector))).toThrow(FrameError);
  });
  test.each(vectors.pings.valid.map((v: any) => [v.name, v]))("%s", (_, vector: any) => {
    const ping = decodePing(message(vector));
    expect(ping).toEqual({ type: vector.kind, nonce: BigInt(`0x${vector.nonce}`) });
    expect(encodePing(ping)).toEqual(message(vector));
  });
  test.each(vectors.pings.invalid.map((v: any) => [v.name, v]))("refused: %s", (_, vector: any) => {
    expect(() => decodePing(message(vector))).toThrow(FrameError);
  });
});

test("whatever bytes come are a frame that can be written again, or refused", () => {
  const kinds = fc.tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 300 }));
  fc.assert(
    fc.property(kinds, ([kind, rest]) => {
      let frame;
      try {
        frame = decodeFrame(new Uint8Array([kind, ...rest]));
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
        return;
      }
      expect(decodeFrame(encodeFrame(frame))).toEqual(frame);
    }),
    { numRuns: 5_000 },
  );
});
