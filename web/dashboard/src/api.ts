// The node's services over gRPC-Web, and streams that come back after a loss.
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChannelService } from "./gen/espalier/v1/channel_pb.js";
import { ClusterService } from "./gen/espalier/v1/cluster_pb.js";
import { TopologyService } from "./gen/espalier/v1/topology_pb.js";

/** Clients of every service that the dashboard calls. */
export function api(endpoint: string, token: string) {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const transport = createGrpcWebTransport({ baseUrl: endpoint, interceptors: [authorize] });
  return {
    channels: createClient(ChannelService, transport),
    cluster: createClient(ClusterService, transport),
    topology: createClient(TopologyService, transport),
  };
}

export type Api = ReturnType<typeof api>;

/** Whether the token is what is wrong, so that nothing is gained by asking again. */
export function isRefused(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  return code === Code.Unauthenticated || code === Code.PermissionDenied || code === Code.NotFound;
}

/** Reads a stream, and opens it again after a loss, until told to stop or refused. */
export async function follow<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  signal: AbortSignal,
  take: (value: T) => void,
  lost: (problem: string) => void,
): Promise<void> {
  let pause = 250;
  while (!signal.aborted) {
    try {
      for await (const value of open(signal)) {
        if (signal.aborted) return;
        pause = 250;
        take(value);
      }
      lost("the node ended the stream");
    } catch (error) {
      if (signal.aborted) return;
      lost(ConnectError.from(error).rawMessage);
      if (isRefused(error)) return;
    }
    // Pages of one audience do not come back in step.
    await rest(pause * (0.5 + Math.random() / 2), signal);
    pause = Math.min(pause * 2, 5000);
  }
}

function rest(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
