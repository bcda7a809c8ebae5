// The audience counted: by what peers are and where, and how late and how full they are. Pure.
import { DeviceClass, NatClass } from "./gen/espalier/v1/peer_pb.js";
import { PeerRole } from "./gen/espalier/v1/common_pb.js";
import { NodeState, type Node } from "./gen/espalier/v1/topology_pb.js";

export type Counts = [label: string, count: number][];

export interface Census {
  peers: number;
  /** Lower quartile, median, upper quartile, ms; NaN where nobody said. */
  latency: [number, number, number];
  buffer: [number, number, number];
  /** The part of peers whose buffer is empty. */
  buffering: number;
  bytesToPeers: number;
  groups: { title: string; counts: Counts }[];
}

const UPLOADS: [string, number][] = [["none", 1], ["< 1 Mbit/s", 1e6], ["1–3 Mbit/s", 3e6], ["3–10 Mbit/s", 1e7], ["10–50 Mbit/s", 5e7], ["more", Infinity]];

/** Counts each peer once, in however many trees it is. */
export function census(nodes: readonly Node[]): Census {
  const peers = [...new Map(nodes.map((node) => [node.peer, node])).values()];
  const heard = peers.flatMap((node) => (node.health ? [node.health] : []));
  return {
    peers: peers.length,
    latency: quartiles(heard.map((health) => health.latencyMs)),
    buffer: quartiles(heard.map((health) => health.bufferMs)),
    buffering: heard.length === 0 ? 0 : heard.filter((health) => health.bufferMs === 0).length / heard.length,
    bytesToPeers: heard.reduce((sum, health) => sum + Number(health.bytesToPeers), 0),
    groups: [
      { title: "States", counts: count(peers, (node) => (node.session ? name(NodeState[node.state]) : "no session")) },
      { title: "Roles", counts: count(peers, (node) => name(PeerRole[node.role])) },
      { title: "Upload offered", counts: count(peers, (node) => uploadOf(Number(node.uploadBps)), UPLOADS.map(([label]) => label)) },
      { title: "NAT", counts: count(peers, (node) => name(NatClass[node.profile?.nat ?? 0])) },
      { title: "Devices", counts: count(peers, (node) => name(DeviceClass[node.profile?.device ?? 0])) },
      { title: "Networks (ASN)", counts: count(peers, (node) => (node.locality?.asn ? `AS${node.locality.asn}` : "unknown")) },
      { title: "Regions", counts: count(peers, (node) => node.locality?.region || "unknown") },
    ],
  };
}

export function quartiles(values: number[]): [number, number, number] {
  const sorted = values.sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.round((sorted.length - 1) * part)] ?? NaN;
  return [at(0.25), at(0.5), at(0.75)];
}

function uploadOf(bps: number): string {
  return UPLOADS.find(([, below]) => bps < below)?.[0] ?? "more";
}

function name(constant: string | undefined): string {
  return !constant || constant === "UNSPECIFIED" ? "unknown" : constant.toLowerCase().replaceAll("_", " ");
}

function count(peers: readonly Node[], label: (node: Node) => string, order?: string[]): Counts {
  const counts = new Map<string, number>();
  for (const node of peers) counts.set(label(node), (counts.get(label(node)) ?? 0) + 1);
  const all: Counts = [...counts];
  all.sort(order ? (a, b) => order.indexOf(a[0]) - order.indexOf(b[0]) : (a, b) => b[1] - a[1]);
  return all.slice(0, 8);
}
