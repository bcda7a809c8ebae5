/** Requests to the CDN: the body in pieces as it comes, each request ended exactly once unless it is cancelled. */
import type { FetchUpdate } from "../engine/types.js";
import type { ByteRange } from "../media/object.js";

export class Fetcher {
  private readonly running = new Map<number, AbortController>();

  constructor(
    private readonly tell: (id: number, update: FetchUpdate) => void,
    private readonly resolve: (uri: string) => string | Promise<string>,
  ) {}

  start(id: number, uri: string, range: ByteRange | undefined): void {
    const abort = new AbortController();
    this.running.set(id, abort);
    void this.run(id, uri, range, abort.signal);
  }

  cancel(id: number): void {
    this.running.get(id)?.abort();
    this.running.delete(id);
  }

  close(): void {
    for (const id of [...this.running.keys()]) this.cancel(id);
  }

  private async run(
    id: number,
    uri: string,
    range: ByteRange | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const tell = (update: FetchUpdate) => {
      if (this.running.has(id)) this.tell(id, update);
    };
    try {
      const last = range && range.offset + range.length - 1;
      const headers: HeadersInit = range ? { Range: `bytes=${range.offset}-${last ?? ""}` } : {};
      const answer = await fetch(await this.resolve(uri), { headers, signal });
      if ((answer.status !== 200 && answer.status !== 206) || !answer.body)
        throw new Error(`status ${answer.status}`);
      tell({ type: "started", partial: answer.status === 206 });
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        tell({ type: "body", bytes: value });
      }
      tell({ type: "end" });
    } catch (error) {
      tell({ type: "failed", reason: error instanceof Error ? error.message : "it failed" });
    }
    this.running.delete(id);
  }
}
