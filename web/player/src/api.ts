/** What an API token is good for here: a viewer token, where the stream is, and the tree as the planner has it. */
import { createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChannelService } from "./gen/espalier/v1/channel_pb.js";
import { TopologyService } from "./gen/espalier/v1/topology_pb.js";
import type { Node } from "./place.js";

export class Api {
  private readonly name: string;
  private readonly channels;
  private readonly topology;

  constructor(endpoint: string, token: string, channel: string) {
    const authorize: Interceptor = (next) => (request) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    };
    const transport = createGrpcWebTransport({ baseUrl: endpoint, interceptors: [authorize] });
    this.name = `channels/${channel}`;
    this.channels = createClient(ChannelService, transport);
    this.topology = createClient(TopologyService, transport);
  }

  async source(): Promise<string> {
    return (await this.channels.getChannel({ name: this.name })).originUri;
  }

  async viewerToken(): Promise<string> {
    const { token } = await this.channels.issueViewerToken({
      channel: this.name,
      ttl: { seconds: 3600n, nanos: 0 },
    });
    return token;
  }

  /** Tells the tree of stripe 0 whenever it has changed, for as long as the page lives. */
  async watch(tell: (nodes: Node[]) => void): Promise<never> {
    for (;;) {
      try {
        for await (const { nodes } of this.topology.watchTopology({ channel: this.name }))
          tell(nodes.filter(({ stripe }) => stripe === 0).map(nodeOf));
      } catch {
        // Without the node the tree is not known; the stream goes on.
        tell([]);
      }
      // Pages of one audience do not come back in step.
      await new Promise((resolve) => setTimeout(resolve, 1_000 + 2_000 * Math.random()));
    }
  }
}

function nodeOf(node: {
  peer: string;
  depth: number;
  source?: { kind: { case: string | undefined; value?: unknown } };
}): Node {
  const { kind } = node.source ?? { kind: { case: undefined } };
  const parent = kind.case === "peer" && typeof kind.value === "string" ? kind.value : undefined;
  return { peer: node.peer, depth: node.depth, parent };
}
