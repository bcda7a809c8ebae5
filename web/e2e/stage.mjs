// What scenes in a browser need: a live stream, a CDN that counts, a node, native peers, and Chromium.
import { createHash } from "node:crypto";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { HideableTab } from "./hideable.mjs";
import { Origin } from "./origin.mjs";
import { PATIENCE, Program, until } from "./processes.mjs";

const ROOT = new URL("../..", import.meta.url).pathname;
const PROGRAMS = process.env.ESPALIER_BIN_DIR ?? join(ROOT, "target/release");
/** What Playwright adds so that hidden tabs run like seen ones: here they are as users have them. */
const NOT_FOR_US = [
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
];

const run = promisify(execFile);
export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export class Stage {
  peers = [];
  tabs = [];

  async set() {
    this.directory = await mkdtemp(join(tmpdir(), "espalier-web-"));
    this.origin = new Origin(this.directory);
    await Promise.all([this.origin.start(), this.firstNode()]);
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      ignoreDefaultArgs: NOT_FOR_US,
      timeout: PATIENCE * 1000,
      args: [
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
        "--allow-loopback-in-peer-connection",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
      ],
    });
  }

  async firstNode() {
    const [port, admin] = [await freePort(), await freePort()];
    this.endpoint = `http://127.0.0.1:${port}`;
    const data = join(this.directory, "node");
    const text = `data_dir = "${data}"\nlisten = "127.0.0.1:${port}"\nadmin_listen = "127.0.0.1:${admin}"\n`;
    await writeFile(join(this.directory, "node.toml"), text);
    await this.startNode();
    this.apiToken = await this.node.announced("ESPALIER_TOKEN");
  }

  /** Starts the node, for the first time or again with what it had kept. */
  async startNode() {
    const config = join(this.directory, "node.toml");
    this.node = new Program(join(PROGRAMS, "espalier-orchestrator"), ["--config", config]);
    await this.node.announced("ESPALIER_ENDPOINT");
  }

  async cli(...args) {
    const env = { ...process.env, ESPALIER_ENDPOINT: this.endpoint, ESPALIER_TOKEN: this.apiToken };
    return (await run(join(PROGRAMS, "espalier"), args, { env })).stdout;
  }

  /** A channel for a scene; viewers from now on watch it. */
  async channel(id) {
    this.watched = id;
    await until(`the channel ${id}`, async () => {
      await this.cli("channel", "create", id, "--origin", this.origin.playlist);
      return true;
    });
    this.token = (await this.cli("token", "issue", "--channel", id, "--ttl", "1h")).trim();
  }

  /** Where a viewer watches. */
  viewerUri(page, options = {}) {
    const query = new URLSearchParams({
      endpoint: this.endpoint,
      channel: this.watched,
      token: this.token,
      source: this.origin.playlist,
      ...options,
    });
    return `${this.origin.uri}/e2e/pages/${page}.html?${query}`;
  }

  /** A viewer in a tab of its own: a browser of somebody else, but for its processes. */
  async viewer(page = "viewer", options = {}) {
    return this.tab(this.viewerUri(page, options));
  }

  async hideableViewer() {
    const tab = await HideableTab.open(this.browser, this.viewerUri("player"));
    this.tabs.push(tab);
    return tab;
  }

  async tab(uri, options = {}) {
    // With a camera's permission a page learns its addresses, and links on this machine need no name service.
    const context = await this.browser.newContext({
      permissions: ["camera", "microphone"],
      ...options,
    });
    const tab = await context.newPage();
    tab.log = [];
    tab.setDefaultTimeout(PATIENCE * 1000);
    tab.on("console", (message) => tab.log.push(message.text()));
    tab.on("pageerror", (error) => tab.log.push(String(error)));
    this.tabs.push(tab);
    await tab.goto(uri);
    return tab;
  }

  /** A native peer: `play` serves what it has at `words.ESPALIER_URL`. */
  async native({ program = "espalier-peer", upload = "20mbit", consumer = false } = {}) {
    const args = ["play", "--orchestrator", this.endpoint, "--channel", this.watched];
    args.push("--token", this.token, "--listen", "127.0.0.1:0", "--bind", "127.0.0.1");
    args.push(...(consumer ? ["--consumer"] : ["--upload", upload]));
    const peer = new Program(join(PROGRAMS, program), args);
    this.peers.push(peer);
    peer.id = await peer.announced("ESPALIER_PEER");
    peer.url = await peer.announced("ESPALIER_URL");
    return peer;
  }

  /** Fails unless each of the segments, by URI and hash, is as the origin has it. */
  async compare(segments) {
    for (const { uri, hash } of segments)
      if (sha256(await this.origin.file(uri)) !== hash)
        throw new Error(`other bytes of ${uri} than the origin has`);
  }

  /** Between scenes: viewers go, the node and the stream stay. */
  async tidy() {
    await Promise.all(
      this.tabs.splice(0).map((tab) =>
        tab
          .context()
          .close()
          .catch(() => undefined),
      ),
    );
    await Promise.all(this.peers.splice(0).map((peer) => peer.end()));
  }

  /** What may explain a failure. */
  async explain() {
    for (const [index, tab] of this.tabs.entries()) {
      const state = tab
        .evaluate(() =>
          JSON.stringify([
            { ...window.state, fragments: window.state?.fragments?.length },
            window.espalier?.statistics(),
          ]),
        )
        .catch(String);
      const late = new Promise((resolve) => setTimeout(resolve, 5_000, "the page does not answer"));
      console.log(`--- tab ${index}:`, await Promise.race([state, late]));
      console.log(tab.log.slice(-30).join("\n"));
    }
    for (const program of [...this.peers, this.node, this.origin?.encoder])
      if (program) console.log(`--- ${program.name}:\n${program.log.slice(-3000)}`);
    console.log(await this.cli("channel", "tree", this.watched).catch(String));
  }

  async clear() {
    await this.tidy();
    await this.browser?.close().catch(() => undefined);
    await this.node?.end();
    await this.origin?.end();
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
