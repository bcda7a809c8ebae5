/** `@espalier/client`: the wire's codec, signed statements, and the relay engine. */
export { decodeFrame, encodeFrame, FrameError, type Frame } from "./engine/frame.js";
export { RelayEngine } from "./engine/relay_engine.js";
export * from "./engine/types.js";
export {
  decodeSigned,
  StatementError,
  trustedKeys,
  type SignedStatement,
} from "./media/statement.js";
export { Espalier, type Consent, type EspalierOptions, type Statistics } from "./espalier.js";
export { keyText, type ObjectKey, type ByteRange } from "./media/object.js";
export { initOf, type Descriptor, type MasterHeader, type TrackHeader } from "./media/statement.js";
