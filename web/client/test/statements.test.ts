/** Runs `proto/vectors/statements.json`. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CHUNK_SIZE } from "../src/media/limits.js";
import {
  decodeSigned,
  fromParts,
  hashOf,
  hex,
  keyId,
  StatementError,
  trustedKeys,
} from "../src/media/statement.js";

const vectors = JSON.parse(
  readFileSync(new URL("../../../proto/vectors/statements.json", import.meta.url), "utf8"),
);
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));
const keys = trustedKeys([unhex(vectors.public_key)]);

test("the key's id", () => expect(keyId(unhex(vectors.public_key))).toBe(vectors.key_id));

test.each(vectors.statements.map((v: any) => [v.name, v]))("%s", (_, vector: any) => {
  const check = () =>
    fromParts(unhex(vector.payload), unhex(vector.signature), unhex(vector.key_id), keys);
  if (vector.result === "accepted") {
    const signed = check();
    expect(decodeSigned(signed.encoded, keys).statement).toEqual(signed.statement);
  } else {
    expect(check).toThrow(expect.objectContaining({ fault: vector.result }));
  }
});

test.each(vectors.chunks.objects.map((o: any) => [o.length, o]))(
  "hashes of %d bytes",
  (_, object: any) => {
    const bytes = Uint8Array.from({ length: object.length }, (_, index) => index % 251);
    const hashes = [];
    for (let at = 0; at < bytes.length; at += CHUNK_SIZE)
      hashes.push(hex(hashOf(bytes.subarray(at, at + CHUNK_SIZE))));
    expect(hashes).toEqual(object.hashes);
  },
);

test("nothing that comes as a statement does worse than be refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      expect(() => decodeSigned(bytes, keys)).toThrow(StatementError);
    }),
  );
});
