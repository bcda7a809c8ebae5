/** The signer's feed: statements as they are made, from the node or a signer elsewhere. */
import type { FeedEvent } from "../engine/types.js";
import { Backoff } from "./backoff.js";
import type { Session } from "./session.js";
import { feedEvent } from "./translate.js";

export class Feed {
  private stop: AbortController | undefined;
  signers: readonly string[] = [""];

  constructor(
    private readonly session: Session,
    private readonly channel: string,
    private readonly tell: (event: FeedEvent) => void,
  ) {}

  open(): void {
    if (this.stop) return;
    this.stop = new AbortController();
    void this.run(this.stop.signal);
  }

  close(): void {
    this.stop?.abort();
    this.stop = undefined;
  }

  private async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(200, 5_000);
    for (let turn = 0; !signal.aborted; turn++) {
      const signer = this.session.signer(this.signers[turn % this.signers.length] ?? "");
      try {
        const headers = { authorization: `Bearer ${await this.session.token()}` };
        const messages = signer.watchStatements({ channel: this.channel }, { headers, signal });
        this.tell({ type: "opened" });
        for await (const message of messages) {
          backoff.reset();
          const event = feedEvent(message);
          if (event) this.tell(event);
        }
      } catch {
        // Whatever it was, the feed is tried again: elsewhere, and later.
      }
      if (isStopped(signal)) return;
      this.tell({ type: "lost" });
      await new Promise((resolve) => setTimeout(resolve, backoff.next()));
    }
  }
}

/** A call, for what was looked at before an await may have changed since. */
function isStopped(signal: AbortSignal): boolean {
  return signal.aborted;
}
