/**
 * `@espalier/hls.js`: lets hls.js play from the tree.
 *
 * Playlists and fragments keep their addresses at the origin. What the tree has comes from there; everything else, and
 * everything while there is no session, comes plainly from the CDN by hls.js's own loader.
 */
import { Espalier, type Consent, type EspalierOptions, type ObjectKey } from "@espalier/client";
import Hls, {
  type HlsConfig,
  type LoaderCallbacks,
  type LoaderConfiguration,
  type LoaderContext,
} from "hls.js";
import { withAbsoluteUris } from "./playlist.js";
import { Shelf } from "./shelf.js";

export interface PlayerOptions extends EspalierOptions {
  /** The share of viewers, 0 to 1, that use the tree at all: 0 is the kill switch. By default 1. */
  readonly rollout?: number;
}

/** Bytes of media since the player was made, whatever was consented to meanwhile. */
export interface Totals {
  readonly fromPeers: number;
  /** By the tree's client, and plainly by hls.js. */
  readonly fromCdn: number;
  readonly toPeers: number;
  readonly corruptChunks: number;
}

/** How long the first playlist waits for the tree. */
const PATIENCE_MS = 500;
/** How long a fragment waits for the tree before the CDN is read beside it, all of it. */
const FRAGMENT_PATIENCE_MS = 6_000;

/** A viewer, and the configuration with which hls.js plays from it. */
export class EspalierPlayer {
  readonly viewer: Espalier | undefined;
  private readonly shelf = new Shelf();
  private readonly patientUntil = performance.now() + PATIENCE_MS;
  private before: Totals = { fromPeers: 0, fromCdn: 0, toPeers: 0, corruptChunks: 0 };
  private plainBytes = 0;
  private consent: Consent;

  constructor(options: PlayerOptions) {
    this.consent = options.consent;
    if (Math.random() >= (options.rollout ?? 1)) return;
    this.viewer = new Espalier({
      ...options,
      onPublication: (publication) => {
        this.shelf.take(publication);
        options.onPublication?.(publication);
      },
    });
  }

  /** For `new Hls(...)`; what is given goes before it. */
  config(config: Partial<HlsConfig> = {}): Partial<HlsConfig> {
    if (!this.viewer) return config;
    const tree = new Tree(this.viewer, this.shelf, this.patientUntil, (bytes) => {
      this.plainBytes += bytes;
    });
    return { ...loaders(tree), ...config };
  }

  /** What the viewer agrees to from now on; it plays on. */
  setConsent(consent: Consent): void {
    if (consent === this.consent) return;
    this.consent = consent;
    // Another session follows, which counts from zero.
    this.before = { ...this.totals, fromCdn: this.totals.fromCdn - this.plainBytes };
    this.viewer?.setConsent(consent);
  }

  get totals(): Totals {
    const now = this.viewer?.statistics();
    const { before } = this;
    return {
      fromPeers: before.fromPeers + (now?.bytesFromPeers ?? 0),
      fromCdn: before.fromCdn + (now?.bytesFromCdn ?? 0) + this.plainBytes,
      toPeers: before.toPeers + (now?.bytesToPeers ?? 0),
      corruptChunks: before.corruptChunks + (now?.corruptChunks ?? 0),
    };
  }

  destroy(): void {
    this.viewer?.close();
  }
}

/** What loaders ask of the tree. */
class Tree {
  constructor(
    private readonly viewer: Espalier,
    readonly shelf: Shelf,
    private readonly patientUntil: number,
    /** A fragment of so many bytes was read plainly. */
    readonly plain: (bytes: number) => void,
  ) {}

  /** Waits until something is found, or for so long; `cancelled` ends it without an answer. */
  find<T>(
    look: () => T | undefined,
    ms: number,
    found: (result: T | undefined) => void,
  ): () => void {
    const now = look();
    if (now !== undefined || ms <= 0) {
      const timer = setTimeout(found, 0, now);
      return () => {
        clearTimeout(timer);
      };
    }
    const end = (result: T | undefined) => {
      cancel();
      found(result);
    };
    const timer = setTimeout(end, ms, undefined);
    const unwatch = this.shelf.watch(() => {
      const result = look();
      if (result !== undefined) end(result);
    });
    const cancel = () => {
      clearTimeout(timer);
      unwatch();
    };
    return cancel;
  }

  get patience(): number {
    return this.patientUntil - performance.now();
  }

  want(key: ObjectKey): void {
    this.viewer.want(key);
  }
}

function loaders(tree: Tree): Partial<HlsConfig> {
  const Plain = Hls.DefaultConfig.loader;

  const counted = (callbacks: LoaderCallbacks<LoaderContext>): LoaderCallbacks<LoaderContext> => ({
    ...callbacks,
    onSuccess: (response, stats, context, details) => {
      tree.plain(stats.loaded);
      callbacks.onSuccess(response, stats, context, details);
    },
  });

  /** hls.js takes a segment whose line changes for another one: the CDN's lines have to look like the tree's. */
  const absolute = (callbacks: LoaderCallbacks<LoaderContext>): LoaderCallbacks<LoaderContext> => ({
    ...callbacks,
    onSuccess: (response, stats, context, details) => {
      const { data, url } = response;
      const playlist = typeof data === "string" ? withAbsoluteUris(data, url || context.url) : data;
      callbacks.onSuccess({ ...response, data: playlist }, stats, context, details);
    },
  });

  class TreeLoader extends Plain {
    protected cancel: (() => void) | undefined;

    override abort(): void {
      this.cancel?.();
      super.abort();
    }

    override destroy(): void {
      this.cancel?.();
      super.destroy();
    }

    protected succeed(
      context: LoaderContext,
      callbacks: LoaderCallbacks<LoaderContext>,
      data: string | ArrayBuffer,
      start: number,
      first: number,
    ): void {
      const { stats } = this;
      const length = typeof data === "string" ? data.length : data.byteLength;
      Object.assign(stats.loading, { start, first, end: performance.now() });
      stats.loaded = stats.total = length;
      callbacks.onSuccess({ url: context.url, data, code: 200 }, stats, context, null);
    }
  }

  class PlaylistLoader extends TreeLoader {
    override load(
      context: LoaderContext,
      config: LoaderConfiguration,
      callbacks: LoaderCallbacks<LoaderContext>,
    ): void {
      const start = performance.now();
      this.cancel = tree.find(
        () => tree.shelf.playlist(context.url),
        tree.patience,
        (text) => {
          this.cancel = undefined;
          if (text === undefined) super.load(context, config, absolute(callbacks));
          else this.succeed(context, callbacks, text, start, performance.now());
        },
      );
    }
  }

  class FragmentLoader extends TreeLoader {
    override load(
      context: LoaderContext,
      config: LoaderConfiguration,
      callbacks: LoaderCallbacks<LoaderContext>,
    ): void {
      const key = tree.shelf.object(context.url, context.rangeStart ?? 0);
      if (!key) {
        super.load(context, config, counted(callbacks));
        return;
      }
      const start = performance.now();
      let first = 0;
      this.stats.loading.start = start;
      tree.want(key);
      const look = () => {
        this.stats.loaded = tree.shelf.loaded(key);
        if (this.stats.loaded > 0 && first === 0)
          first = this.stats.loading.first = performance.now();
        return tree.shelf.body(key);
      };
      this.cancel = tree.find(look, FRAGMENT_PATIENCE_MS, (body) => {
        this.cancel = undefined;
        // The player's worker takes the buffer away: it gets a copy of its own.
        if (body) this.succeed(context, callbacks, body.slice(0), start, first);
        else super.load(context, config, counted(callbacks));
      });
    }
  }

  return {
    pLoader: PlaylistLoader as unknown as NonNullable<HlsConfig["pLoader"]>,
    fLoader: FragmentLoader as unknown as NonNullable<HlsConfig["fLoader"]>,
  };
}
