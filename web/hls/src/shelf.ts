/**
 * What the tree has published, for loaders to read: playlists and objects by their URI at the origin.
 *
 * It holds no more than the ring does: what the engine evicts, it drops.
 */
import {
  initOf,
  keyText,
  type Descriptor,
  type MasterHeader,
  type ObjectKey,
  type Publication,
  type TrackHeader,
} from "@espalier/client";
import { mediaPlaylist } from "./playlist.js";

/** How many segments a playlist lists where the origin's own window is not known. */
const WINDOW = 10;
/** Statements of the past come together: after so long a silence they have all come. */
const SETTLED_MS = 100;

interface Item {
  readonly descriptor: Descriptor;
  readonly chunks: (Uint8Array | undefined)[];
  body: ArrayBuffer | undefined;
}

export class Shelf {
  private master: MasterHeader | undefined;
  private readonly headers = new Map<number, TrackHeader>();
  private readonly items = new Map<string, Item>();
  private readonly bypassed = new Set<string>();
  private readonly listeners = new Set<() => void>();
  /** Half of a window would look to a player as if live were long ago. */
  private settled = false;
  private settling: ReturnType<typeof setTimeout> | undefined;

  take(publication: Publication): void {
    switch (publication.type) {
      case "header":
        if (publication.header.type === "master") this.master = publication.header;
        else this.headers.set(publication.header.track, publication.header);
        break;
      case "listed":
        this.list(publication.descriptor);
        break;
      case "chunk": {
        const item = this.items.get(keyText(publication.object));
        if (item) item.chunks[publication.index] = publication.bytes;
        break;
      }
      case "complete":
        this.complete(publication.object);
        break;
      case "unverified": {
        const item = this.items.get(keyText(publication.object));
        if (item) item.body = joined(publication.body);
        break;
      }
      case "evicted": {
        const item = this.items.get(keyText(publication.object));
        if (item) [item.body, item.chunks.length] = [undefined, 0];
        break;
      }
      case "bypass":
        if (publication.active) this.bypassed.add(publication.track);
        else this.bypassed.delete(publication.track);
        // What was missed meanwhile is told first.
        this.settled = false;
        this.settle();
    }
    this.tell();
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }

  private settle(): void {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.settled = true;
      this.tell();
    }, SETTLED_MS);
  }

  private list(descriptor: Descriptor): void {
    const key = keyText(descriptor.key);
    if (!this.settled) this.settle();
    if (!this.items.has(key)) this.items.set(key, { descriptor, chunks: [], body: undefined });
    // Objects far behind every window are forgotten: a player that seeks there reads the CDN.
    for (const oldest of this.items.keys()) {
      if (this.items.size <= 512) break;
      this.items.delete(oldest);
    }
  }

  private complete(object: ObjectKey): void {
    const item = this.items.get(keyText(object));
    if (!item) return;
    item.body = joined(item.chunks);
    item.chunks.length = 0;
  }

  /** Tells whenever something was published, until the returned function is called. */
  watch(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  /** The media playlist at an origin's URI; undefined: the tree does not have it, or not now. */
  playlist(uri: string): string | undefined {
    const track = this.master?.tracks.find((known) => known.uri === uri);
    const header = track && this.headers.get(track.index);
    if (!header || !this.settled || this.bypassed.has(track.name)) return undefined;
    const window = header.windowSegments || WINDOW;
    const segments = [...this.items.values()]
      .map((item) => item.descriptor)
      .filter(
        ({ key }) =>
          key.track === track.index && key.kind === "segment" && key.epoch === header.epoch,
      )
      .sort((a, b) => (a.key.sequence < b.key.sequence ? -1 : 1))
      .slice(-window);
    const init = (segment: Descriptor) => {
      const key = initOf(segment);
      return key && this.items.get(keyText(key))?.descriptor;
    };
    return mediaPlaylist(header, segments, init) || undefined;
  }

  /** The object at a URI of the origin (and place in it), if it was listed. */
  object(uri: string, offset: number): ObjectKey | undefined {
    for (const { descriptor } of this.items.values())
      if (descriptor.uri === uri && (descriptor.byteRange?.offset ?? 0) === offset)
        return descriptor.key;
    return undefined;
  }

  body(key: ObjectKey): ArrayBuffer | undefined {
    return this.items.get(keyText(key))?.body;
  }

  /** How many bytes of an object have come. */
  loaded(key: ObjectKey): number {
    const item = this.items.get(keyText(key));
    if (item?.body) return item.body.byteLength;
    return item?.chunks.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0) ?? 0;
  }
}

function joined(chunks: readonly (Uint8Array | undefined)[]): ArrayBuffer {
  const body = new Uint8Array(chunks.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0));
  let at = 0;
  for (const chunk of chunks) {
    if (chunk) body.set(chunk, at);
    at += chunk?.length ?? 0;
  }
  return body.buffer;
}
