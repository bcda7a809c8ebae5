// Sessions of peers that pass no media: each takes the places that it is given and says that they flow.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ChannelService } from "../src/gen/espalier/v1/channel_pb.js";
import { TopologyService } from "../src/gen/espalier/v1/topology_pb.js";
import { PeerService } from "../src/gen/espalier/v1/peer_pb.js";

/** Sessions on one connection, below what the node takes. */
const TOGETHER = 500;
/** Joins in a second, below what the node takes of one address. */
const PACE = 300;

function transport(endpoint, token) {
  const authorize = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const sessionManager = new Http2SessionManager(endpoint);
  return { sessionManager, made: createGrpcTransport({ baseUrl: endpoint, interceptors: [authorize], sessionManager, readMaxBytes: 64e6 }) };
}

export function api(endpoint, token) {
  const { made } = transport(endpoint, token);
  const channels = createClient(ChannelService, made);
  const viewerToken = async (id) =>
    (await channels.issueViewerToken({ channel: `channels/${id}`, ttl: { seconds: 3600n, nanos: 0 } })).token;
  return { channels, topology: createClient(TopologyService, made), viewerToken };
}

export class Peers {
  #endpoint;
  #peers = [];
  #connections = [];
  #client;
  #joined = 0;

  constructor(endpoint) {
    this.#endpoint = endpoint;
  }

  ids() {
    return this.#peers.map((peer) => peer.id);
  }

  async join(channel, token, count) {
    const begin = Date.now();
    for (let made = 0; made < count; made++) {
      if (this.#joined % TOGETHER === 0) {
        const { made, sessionManager } = transport(this.#endpoint, token);
        this.#connections.push(sessionManager);
        this.#client = createClient(PeerService, made);
      }
      this.#peers.push(new Peer(this.#client, channel.replace("channels/", ""), this.#joined++));
      const due = begin + (1000 * made) / PACE;
      if (due > Date.now()) await new Promise((resolve) => setTimeout(resolve, due - Date.now()));
    }
  }

  /** So many say that they leave. */
  async leave(count) {
    for (const peer of this.#peers.splice(0, count)) peer.leave();
  }

  /** Some peer reports every few milliseconds, until stopped. */
  reports() {
    let next = 0;
    const timer = setInterval(() => this.#peers[next++ % this.#peers.length]?.report(), 5);
    return { stop: () => clearInterval(timer) };
  }

  end() {
    for (const connection of this.#connections) connection.abort();
  }
}

class Peer {
  #said = [];
  #wake = () => undefined;
  #bytes = 0n;

  constructor(client, channel, number) {
    this.id = (0x1000_0000 + number).toString(16).padStart(16, "0");
    this.number = number;
    const [role, uploadBps] = number % 10 === 0 ? [3, 40_000_000n] : number % 3 === 0 ? [2, 0n] : [1, BigInt(500_000 * (1 + (number % 9)))];
    const profile = { device: 1 + (number % 4), nat: 1 + (number % 4), metered: false, onBattery: false };
    this.#say("open", { peer: this.id, channel, role, uploadBps, minVersion: 1, maxVersion: 1, agent: "test", profile });
    // A session that the end of the test cuts off has nobody to tell.
    this.run = this.#run(client).catch(() => undefined);
  }

  async #run(client) {
    for await (const { kind } of client.session(this.#messages())) {
      if (kind.case === "welcome") this.report();
      if (kind.case !== "assignment") continue;
      const { generation, tracks } = kind.value;
      this.#say("acknowledge", { generation });
      for (const { track, source, stripe } of tracks) this.#say("sourceEvent", { track, source, stripe, state: 1, generation });
    }
  }

  async *#messages() {
    for (;;) {
      const next = this.#said.shift();
      if (next === undefined) await new Promise((resolve) => (this.#wake = resolve));
      else yield next;
      if (next?.kind.case === "leave") return;
    }
  }

  #say(kind, value) {
    this.#said.push({ kind: { case: kind, value } });
    this.#wake();
  }

  report() {
    this.#bytes += 1_000_000n;
    const fromCdn = this.number % 7 === 0;
    this.#say("report", {
      bytesFromCdn: fromCdn ? this.#bytes : 0n, bytesFromPeers: fromCdn ? 0n : this.#bytes,
      bufferMs: 4000 + (this.number % 50) * 40, latencyMs: 5000 + (this.number % 40) * 50,
    });
  }

  leave() {
    this.#say("leave", {});
  }
}
