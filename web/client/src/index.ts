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
