/** `@espalier/client`: the wire's codec so far. */
export { decodeFrame, encodeFrame, FrameError, type Frame } from "./engine/frame.js";
export {
  decodeSigned,
  StatementError,
  trustedKeys,
  type SignedStatement,
} from "./media/statement.js";
