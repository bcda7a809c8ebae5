// Reads a channel's topology, and lays out and counts it beside the page, which so stays smooth.
import { api, follow } from "./api.js";
import { census, type Census } from "./census.js";
import type { Node } from "./gen/espalier/v1/topology_pb.js";
import { layout, type Picture } from "./layout.js";

export type Asked =
  | { kind: "watch"; endpoint: string; token: string; channel: string }
  | { kind: "part"; part: string }
  | { kind: "facts"; peer: string };

export type Told =
  | { kind: "tree"; picture: Picture; parts: string[]; part: string; census: Census }
  | { kind: "facts"; peer: string; text: string }
  | { kind: "lost"; problem: string };

let nodes: readonly Node[] = [];
let wanted = "";
let watching = new AbortController();

onmessage = ({ data }: MessageEvent<Asked>) => {
  if (data.kind === "watch") watch(data.endpoint, data.token, data.channel);
  if (data.kind === "part") { wanted = data.part; show(); }
  if (data.kind === "facts") tell({ kind: "facts", peer: data.peer, text: facts(data.peer) });
};

function watch(endpoint: string, token: string, channel: string): void {
  watching.abort();
  watching = new AbortController();
  nodes = [];
  const { topology } = api(endpoint, token);
  void follow(
    (signal) => topology.watchTopology({ channel }, { signal }),
    watching.signal,
    (state) => { nodes = state.nodes; show(); },
    (problem) => tell({ kind: "lost", problem }),
  );
}

const partOf = (node: Node) => (node.stripe === 0 ? node.track : `${node.track} / ${node.stripe}`);

function show(): void {
  const parts = [...new Set(nodes.map(partOf))].sort();
  const part = parts.includes(wanted) ? wanted : (parts[0] ?? "");
  const picture = layout(nodes.filter((node) => partOf(node) === part));
  const { x, y, parent, standby, kind } = picture;
  tell({ kind: "tree", picture, parts, part, census: census(nodes) }, [x, y, parent, standby, kind].map((it) => it.buffer));
}

function facts(peer: string): string {
  const node = nodes.find((it) => it.peer === peer && partOf(it) === wanted) ?? nodes.find((it) => it.peer === peer);
  if (!node) return peer;
  const source = node.source?.kind.case === "peer" ? node.source.kind.value : "CDN";
  const standby = node.standby?.kind.case === "peer" ? node.standby.kind.value : node.standby ? "CDN" : "none";
  const lines = [
    peer, `from     ${source}`, `standby  ${standby}`, `depth    ${node.depth}`, `children ${node.children.length}`,
    `upload   ${(Number(node.uploadBps) / 1e6).toFixed(1)} Mbit/s`,
  ];
  if (node.health) {
    const mb = (bytes: bigint) => `${(Number(bytes) / 1e6).toFixed(1)} MB`;
    const { bytesFromCdn, bytesFromPeers, bytesToPeers, latencyMs, bufferMs, stalls } = node.health;
    lines.push(`CDN ${mb(bytesFromCdn)}, peers ${mb(bytesFromPeers)}, to peers ${mb(bytesToPeers)}`,
      `latency ${latencyMs} ms, buffer ${bufferMs} ms, stalls ${stalls}`);
  }
  return lines.join("\n");
}

function tell(told: Told, transfer: Transferable[] = []): void {
  postMessage(told, { transfer });
}
