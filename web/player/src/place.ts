/**
 * Where this viewer is in its tree, as far as it may know: an API token sees the whole way up to the CDN, a viewer only
 * whom it takes from. Pure: what is shown is a function of what is known.
 */
import type { Statistics } from "@espalier/client";

/** A viewer's place in the planner's tree. */
export interface Node {
  readonly peer: string;
  /** Undefined: the CDN, or none. */
  readonly parent: string | undefined;
  /** 1 for a root; 0 while it has no place. */
  readonly depth: number;
}

export interface Step {
  readonly text: string;
  readonly kind: "cdn" | "peer" | "me";
}

export interface Place {
  readonly words: string;
  /** From the CDN down to this viewer's children. */
  readonly steps: readonly Step[];
}

const short = (peer: string) => peer.slice(0, 8);

export function placeOf(
  me: string,
  statistics: Pick<Statistics, "sources" | "children"> | undefined,
  nodes: readonly Node[],
): Place {
  if (!statistics)
    return { words: "Not in the tree: the stream comes from the CDN alone.", steps: [] };
  const { sources, children } = statistics;
  const parents = new Set<string>();
  for (const { source } of sources)
    if (source !== undefined && source !== "cdn") parents.add(source.peer);
  const isRoot = parents.size === 0 && sources.some(({ source }) => source === "cdn");
  if (parents.size === 0 && !isRoot) return { words: "Waiting for a place.", steps: [] };
  const known = new Map(nodes.map((node) => [node.peer, node]));
  const depth = isRoot ? 1 : (known.get(me)?.depth ?? 0);
  const [first] = parents;
  const words = isRoot
    ? "Fed by the CDN"
    : `Fed by ${[...parents].map(short).join(", ")}${parents.size > 1 ? ", each a part" : ""}`;
  return {
    words: `${words}${depth > 0 ? `; ${depth} from the CDN` : ""}.`,
    steps: [
      ...(first === undefined ? [CDN] : wayTo(first, known)),
      { text: `■ me, ${short(me)}`, kind: "me" },
      ...children.map((child): Step => ({ text: `└ ${short(child)}`, kind: "peer" })),
    ],
  };
}

const CDN: Step = { text: "◆ the CDN", kind: "cdn" };

/** From the CDN, if it is known so far, down to a peer. */
function wayTo(peer: string, known: ReadonlyMap<string, Node>): Step[] {
  const way: Step[] = [];
  let at = known.get(peer) ?? { peer, parent: undefined, depth: 0 };
  for (;;) {
    way.unshift({ text: `● ${short(at.peer)}`, kind: "peer" });
    const above = at.parent === undefined ? undefined : known.get(at.parent);
    // The tree is acyclic, but what is known of it may be of two moments.
    if (!above || way.length > known.size) break;
    at = above;
  }
  return [at.depth === 1 ? CDN : { text: "⋮", kind: "peer" }, ...way];
}
