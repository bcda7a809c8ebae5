/** The bounds on everything that is read, made or held: the same as in the `espalier-media` crate. */

/** Bytes of a chunk: the unit of hashing, verifying and relaying. An object's last may be shorter. */
export const CHUNK_SIZE = 61_440;
export const MAX_OBJECT_LEN = 64 * 1024 * 1024;
export const MAX_CHUNKS = 1_093;
export const MAX_STATEMENT_LEN = 128 * 1024;
export const MAX_SIGNED_LEN = MAX_STATEMENT_LEN + 128;
export const MAX_TRACKS = 64;
export const MAX_TRACK_INDEX = 65_535;
export const MAX_URI_LEN = 8 * 1024;
export const MAX_LINES = 256;
export const MAX_LINE_LEN = 16 * 1024;
export const MAX_MASTER_LEN = 64 * 1024;
export const MAX_TRACK_NAME_LEN = 32;
export const MAX_SEGMENT_MS = 900_000;
