// Where each peer of a tree is drawn. Pure: nodes of the API in, flat arrays out, so that a worker can hand them
// over without copying. The CDN is in the middle, a peer's depth is its distance from it.
import { hierarchy, tree } from "d3-hierarchy";
import type { Node } from "./gen/espalier/v1/topology_pb.js";
import { NodeState } from "./gen/espalier/v1/topology_pb.js";
import { PeerRole } from "./gen/espalier/v1/common_pb.js";

/** What a peer is drawn as. */
export enum Kind { Root, Relay, Contributor, Consumer, Trouble }

/** A drawn tree: index by index one peer; `parent` and `standby` are indices, -1 for the CDN or nobody. */
export interface Picture {
  ids: string[];
  x: Float32Array;
  y: Float32Array;
  parent: Int32Array;
  standby: Int32Array;
  kind: Uint8Array;
  radius: number;
}

interface Branch { index: number; children: Branch[] }

/** Between two circles of depth. */
const RING = 120;

export function layout(nodes: readonly Node[]): Picture {
  // A fixed order, so that peers keep their places while others come and go.
  const sorted = [...nodes].sort((a, b) => (a.peer < b.peer ? -1 : 1));
  const at = new Map(sorted.map((node, index) => [node.peer, index]));
  const indexOf = (peer: string | undefined) => (peer === undefined ? -1 : (at.get(peer) ?? -1));
  const parent = Int32Array.from(sorted, (node) => indexOf(peerOf(node.source)));
  const standby = Int32Array.from(sorted, (node) => indexOf(peerOf(node.standby)));
  const branches: Branch[] = sorted.map((_, index) => ({ index, children: [] }));
  const top: Branch = { index: -1, children: [] };
  branches.forEach((branch, index) => {
    const above = parent[index] ?? -1;
    (reachesCdn(index, parent) && above >= 0 ? (branches[above] ?? top) : top).children.push(branch);
  });
  const root = hierarchy(top, (branch) => branch.children);
  const deepest = Math.max(1, root.height);
  const spread = Math.max(1, root.leaves().length);
  // Far enough out that the peers of the outermost circle do not cover each other.
  const radius = Math.max(RING * deepest, (spread * 9) / (2 * Math.PI));
  tree<Branch>().size([2 * Math.PI, radius]).separation((a, b) => (a.parent === b.parent ? 1 : 2) / Math.max(1, a.depth))(root);
  const x = new Float32Array(sorted.length);
  const y = new Float32Array(sorted.length);
  root.each((place) => {
    if (place.data.index < 0) return;
    const angle = (place.x ?? 0) - Math.PI / 2;
    x[place.data.index] = Math.cos(angle) * (place.y ?? 0);
    y[place.data.index] = Math.sin(angle) * (place.y ?? 0);
  });
  const kind = Uint8Array.from(sorted, kindOf);
  return { ids: sorted.map((node) => node.peer), x, y, parent, standby, kind, radius };
}

function peerOf(source: Node["source"]): string | undefined {
  return source?.kind.case === "peer" ? source.kind.value : undefined;
}

/** Two states of one moment may show a circle, which no drawing of a tree has a place for. */
function reachesCdn(index: number, parent: Int32Array): boolean {
  let above = parent[index] ?? -1;
  for (let steps = 0; above >= 0; steps++) {
    if (above === index || steps > parent.length) return false;
    above = parent[above] ?? -1;
  }
  return true;
}

export function kindOf(node: Node): Kind {
  if (node.state === NodeState.REPAIRING || node.state === NodeState.BYPASS || !node.session) return Kind.Trouble;
  if (node.source?.kind.case === "cdn") return Kind.Root;
  if (node.role === PeerRole.RELAY) return Kind.Relay;
  return node.role === PeerRole.CONSUMER ? Kind.Consumer : Kind.Contributor;
}
