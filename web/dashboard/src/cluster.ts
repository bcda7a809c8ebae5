// The cluster's nodes and groups, and the drain of a node.
import { ask, element } from "./ask.js";
import type { Api } from "./api.js";
import { ClusterNodeState, type Cluster } from "./gen/espalier/v1/cluster_pb.js";

export function showCluster(section: HTMLElement, api: Api, cluster: Cluster): void {
  const nodes = table(["Node", "State", "Reachable", "Leads", "Sessions", "Release", "Address", ""]);
  for (const node of cluster.nodes) {
    const undo = node.state === ClusterNodeState.DRAINING;
    const drain = element("button", undo ? "Take back" : "Drain");
    drain.onclick = () => ask(
      undo ? `Take the drain of ${node.name} back?` : `Drain ${node.name}?`,
      undo ? "It will lead groups and hold sessions again." : "It will lead nothing, and its peers will be sent to other nodes.",
      [], undo ? "Take back" : "Drain",
      async () => { await api.cluster.drainNode({ name: node.name, undo }); return undefined; },
    );
    const state = (ClusterNodeState[node.state] ?? "").toLowerCase();
    row(nodes, [node.name, state, node.reachable ? "yes" : "no", node.leads, node.sessions, node.release, node.publicUri, drain]);
  }
  const shards = table(["Group", "Leader", "Term", "Applied", "Channels", "Voters"]);
  for (const shard of cluster.shards) {
    row(shards, [shard.name, shard.leader || "none", shard.term, shard.appliedIndex, shard.channels, shard.voters.length]);
  }
  const details = element("details");
  details.open = section.querySelector("details")?.open ?? false;
  details.append(element("summary", `${cluster.shards.length} Raft groups`), shards);
  section.replaceChildren(element("h2", `Cluster ${cluster.id}`), nodes, details);
}

function table(heads: string[]): HTMLTableElement {
  const made = element("table");
  made.createTHead().insertRow().append(...heads.map((head) => element("th", head)));
  made.createTBody();
  return made;
}

function row(to: HTMLTableElement, cells: (string | number | bigint | HTMLElement)[]): void {
  const made = to.tBodies[0]?.insertRow();
  for (const cell of cells) made?.insertCell().append(cell instanceof HTMLElement ? cell : String(cell));
}
