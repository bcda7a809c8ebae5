/**
 * The session with a node, over gRPC-Web: one stream from it, and calls to it, one at a time. It is opened again,
 * at another node, for as long as it is wanted; a lost session is not a lost peer.
 */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { Generation, HeldEdge, Role } from "../engine/types.js";
import * as v1 from "../gen/espalier/v1/peer_pb.js";
import { SignerService } from "../gen/espalier/v1/signer_pb.js";
import { GenerationSchema } from "../gen/espalier/v1/common_pb.js";
import { Backoff } from "./backoff.js";
import { heldToWire } from "./translate.js";

const RETRY = { first: 100, most: 5_000 };
const MAX_MESSAGES = 64;
/** What waits to be said; beyond it the session is opened anew, which says everything again. */
const MAX_WAITING = 1_024;
const AGENT = "espalier-client/0.1.0";

export type Token = string | (() => string | Promise<string>);

export interface SessionOptions {
  readonly endpoints: readonly string[];
  readonly token: Token;
  readonly peer: string;
  readonly channel: string;
  readonly role: Role;
  readonly uploadBps: number;
  readonly tracks: readonly string[];
  readonly mobile: boolean;
  readonly metered: boolean;
}

export interface SessionEvents {
  held(): { generation: Generation; edges: readonly HeldEdge[] };
  message(message: v1.NodeMessage): void;
  /** Undefined: there is a session; else why there is none. */
  state(problem: string | undefined): void;
}

const ROLES = { contributor: 1, consumer: 2, relay: 3 };

export class Session {
  private readonly stop = new AbortController();
  private endpoints: readonly string[];
  private turn = 0;
  private ticket: Uint8Array = new Uint8Array();
  private attempt = 0;
  private name: Uint8Array | undefined;
  private sequence = 1n;
  private waiting: v1.PeerMessage[] = [];
  private sending = false;
  private stream: AbortController | undefined;

  constructor(
    private readonly options: SessionOptions,
    private readonly events: SessionEvents,
  ) {
    this.endpoints = options.endpoints;
    void this.run();
  }

  get endpoint(): string {
    return this.endpoints[this.turn % this.endpoints.length] ?? "";
  }

  private async run(): Promise<void> {
    const backoff = new Backoff(RETRY.first, RETRY.most);
    while (!this.stop.signal.aborted) {
      let problem = "the node ended the session";
      try {
        await this.attach(() => {
          backoff.reset();
        });
      } catch (error) {
        problem = ConnectError.from(error).message;
      }
      this.name = undefined;
      if (this.isStopped()) return;
      this.events.state(problem);
      this.turn += 1;
      await new Promise((resolve) => setTimeout(resolve, backoff.next()));
    }
  }

  private isStopped(): boolean {
    return this.stop.signal.aborted;
  }

  private async attach(welcomed: () => void): Promise<void> {
    const stream = new AbortController();
    this.stream = stream;
    const stopped = AbortSignal.any([stream.signal, this.stop.signal]);
    const client = createClient(v1.PeerService, createGrpcWebTransport({ baseUrl: this.endpoint }));
    const headers = { authorization: `Bearer ${await this.token()}` };
    const messages = client.attach({ open: this.open() }, { headers, signal: stopped });
    for await (const message of messages) {
      if (message.kind.case === "welcome") {
        this.welcomed(message.kind.value);
        welcomed();
      } else if (message.kind.case === "notice" && message.kind.value.kind.case === "drain") {
        return;
      }
      this.events.message(message);
      void this.flush(client);
    }
  }

  /** The token as it is now: integrators may renew it whenever they are asked. */
  async token(): Promise<string> {
    const { token } = this.options;
    return typeof token === "string" ? token : token();
  }

  private open(): v1.Open {
    this.attempt = Math.max(this.attempt + 1, Date.now());
    const { peer, channel, role, uploadBps, tracks, mobile, metered } = this.options;
    const held = this.events.held();
    return create(v1.OpenSchema, {
      peer,
      channel,
      role: ROLES[role],
      uploadBps: BigInt(Math.max(0, Math.floor(uploadBps))),
      ticket: this.ticket,
      tracks: [...tracks],
      held: heldToWire(held.edges),
      generation: create(GenerationSchema, held.generation),
      minVersion: 1,
      maxVersion: 1,
      agent: AGENT,
      attempt: BigInt(this.attempt),
      profile: create(v1.ProfileSchema, { device: mobile ? 3 : 1, metered }),
    });
  }

  private welcomed(welcome: v1.Welcome): void {
    this.ticket = welcome.ticket;
    this.name = welcome.session;
    this.sequence = 1n;
    this.waiting = [];
    const known = welcome.endpoints.filter((uri) => !this.endpoints.includes(uri));
    this.endpoints = [...this.endpoints, ...known];
    this.events.state(undefined);
  }

  say(kind: v1.PeerMessage["kind"]): void {
    if (this.name === undefined) return;
    this.waiting.push(create(v1.PeerMessageSchema, { kind }));
    if (this.waiting.length > MAX_WAITING) this.stream?.abort();
    else void this.flush();
  }

  private async flush(client = this.client()): Promise<void> {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.waiting.length > 0 && this.name) await this.call(client, this.name);
    } catch (error) {
      const { code } = ConnectError.from(error);
      // The stream says why a session is no more; without a stream to say it, it is opened anew.
      if (code === Code.NotFound || code === Code.OutOfRange) this.stream?.abort();
      else setTimeout(() => void this.flush(), RETRY.most / 10);
    } finally {
      this.sending = false;
    }
  }

  private async call(client: Client<typeof v1.PeerService>, session: Uint8Array): Promise<void> {
    const [messages, sequence] = [this.waiting.slice(0, MAX_MESSAGES), this.sequence];
    const { nextSequence } = await client.send(
      { session, sequence, messages },
      { signal: this.stop.signal, timeoutMs: 5_000 },
    );
    if (this.name !== session) return;
    this.waiting.splice(0, Number(nextSequence - sequence));
    this.sequence = nextSequence;
  }

  private client(): Client<typeof v1.PeerService> {
    return createClient(v1.PeerService, createGrpcWebTransport({ baseUrl: this.endpoint }));
  }

  signer(endpoint: string): Client<typeof SignerService> {
    const baseUrl = endpoint || this.endpoint;
    return createClient(SignerService, createGrpcWebTransport({ baseUrl }));
  }

  /** Says goodbye and ends; `keepalive` lets the call outlive the page. */
  close(): void {
    const session = this.name;
    this.name = undefined;
    if (session) {
      const transport = createGrpcWebTransport({
        baseUrl: this.endpoint,
        fetch: (input, init) => fetch(input, { ...init, keepalive: true }),
      });
      const leave = create(v1.PeerMessageSchema, {
        kind: { case: "leave", value: create(v1.LeaveSchema) },
      });
      const messages = [...this.waiting.slice(0, MAX_MESSAGES - 1), leave];
      createClient(v1.PeerService, transport)
        .send({ session, sequence: this.sequence, messages })
        .catch(() => undefined);
    }
    this.stop.abort();
  }
}
