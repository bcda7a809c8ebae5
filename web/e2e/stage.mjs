// What a scene in a browser needs: a live stream, a CDN that counts, a node, and Chromium.
import { spawn, execFileSync } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const ROOT = new URL("../..", import.meta.url).pathname;
const BIN = process.env.ESPALIER_BIN_DIR ?? join(ROOT, "target/release");
const CLI = process.env.ESPALIER_CLI ?? join(BIN, "espalier");
const TYPES = {
  js: "text/javascript",
  mjs: "text/javascript",
  html: "text/html",
  m3u8: "application/vnd.apple.mpegurl",
  ts: "video/mp2t",
};

/** Waits for a condition, with a deadline. */
export async function until(what, seconds, condition) {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export class Stage {
  processes = [];
  media = [];

  static async set() {
    const stage = new Stage();
    stage.directory = await mkdtemp(join(tmpdir(), "espalier-web-"));
    try {
      await stage.serve();
      await stage.stream();
      await stage.node();
      stage.browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: [
          "--no-sandbox",
          "--autoplay-policy=no-user-gesture-required",
          "--allow-loopback-in-peer-connection",
          "--disable-features=WebRtcHideLocalIpsWithMdns",
          "--use-fake-ui-for-media-stream",
          "--use-fake-device-for-media-stream",
        ],
      });
      return stage;
    } catch (error) {
      await stage.clear();
      throw error;
    }
  }

  spawn(program, args, options = {}) {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      ...options,
    });
    child.log = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (data) => (child.log = (child.log + data).slice(-20_000)));
    this.processes.push(child);
    return child;
  }

  async serve() {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch(() => response.writeHead(404).end());
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    this.origin = `http://127.0.0.1:${this.port}`;
  }

  /** `/live/` is the CDN; everything else is the workspace's own pages and bundles. */
  async answer(request, response) {
    const { pathname } = new URL(request.url, this.origin);
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Allow-Headers", "range");
    if (request.method === "OPTIONS") return response.writeHead(204).end();
    const live = pathname.startsWith("/live/");
    const path = live ? join(this.directory, pathname.slice(6)) : join(ROOT, "web", pathname);
    if (path.includes("..")) return response.writeHead(404).end();
    const { size } = await stat(path);
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = range ? [+range[1], Math.min(+range[2], size - 1)] : [0, size - 1];
    const signer = request.headers["x-peer-id"] === "signer";
    if (live && path.endsWith(".ts") && !signer)
      this.media.push({ path: pathname, bytes: end - start + 1 });
    response.writeHead(range ? 206 : 200, {
      "Content-Type": TYPES[path.split(".").pop()] ?? "application/octet-stream",
      "Content-Length": end - start + 1,
      ...(range && { "Content-Range": `bytes ${start}-${end}/${size}` }),
    });
    createReadStream(path, { start, end }).pipe(response);
  }

  async stream() {
    const words =
      "-nostdin -loglevel error -re -f lavfi -i testsrc2=size=320x180:rate=15 -re -f lavfi -i sine " +
      "-c:v libx264 -preset ultrafast -tune zerolatency -g 30 -keyint_min 30 -sc_threshold 0 -x264-params nal-hrd=cbr " +
      "-b:v 1400k -minrate 1400k -maxrate 1400k -bufsize 1400k -c:a aac -b:a 64k " +
      "-f hls -hls_time 2 -hls_list_size 15 -hls_delete_threshold 60 " +
      "-hls_flags delete_segments+program_date_time+temp_file -hls_segment_filename seg-%d.ts live.m3u8";
    this.spawn("ffmpeg", words.split(" "), { cwd: this.directory });
    const playlist = join(this.directory, "live.m3u8");
    await until("four segments", 30, async () => {
      const text = await readFile(playlist, "utf8").catch(() => "");
      return text.split("#EXTINF").length > 4;
    });
  }

  async node() {
    const free = createServer();
    await new Promise((resolve) => free.listen(0, "127.0.0.1", resolve));
    const { port } = free.address();
    await new Promise((resolve) => free.close(resolve));
    this.endpoint = `http://127.0.0.1:${port}`;
    this.orchestrator = this.spawn(join(BIN, "espalier-orchestrator"), [
      "--dev",
      "--listen",
      `127.0.0.1:${port}`,
    ]);
    this.apiToken = await until("an API token", 30, async () => {
      return /ESPALIER_TOKEN=(\S+)/.exec(this.orchestrator.log)?.[1];
    });
    await until("the channel", 30, async () => {
      try {
        this.cli("channel", "create", "demo", "--origin", `${this.origin}/live/live.m3u8`);
        return true;
      } catch {
        return false;
      }
    });
    this.token = this.cli("token", "issue", "--channel", "demo", "--ttl", "1h").trim();
  }

  cli(...args) {
    const env = { ...process.env, ESPALIER_ENDPOINT: this.endpoint, ESPALIER_TOKEN: this.apiToken };
    return execFileSync(CLI, args, { env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** A viewer in a tab of its own. */
  async viewer(page = "e2e/viewer.html") {
    const context = await this.browser.newContext({ permissions: ["camera", "microphone"] });
    const tab = await context.newPage();
    tab.log = [];
    tab.on("console", (message) => tab.log.push(message.text()));
    tab.on("pageerror", (error) => tab.log.push(String(error)));
    const query = new URLSearchParams({
      endpoint: this.endpoint,
      token: this.token,
      origin: this.origin,
    });
    await tab.goto(`${this.origin}/${page}?${query}`);
    return tab;
  }

  /** The bytes of a segment as the origin has them. */
  file(name) {
    return readFile(join(this.directory, name));
  }

  async clear() {
    await this.browser?.close().catch(() => undefined);
    for (const child of this.processes) child.kill("SIGKILL");
    this.server?.closeAllConnections();
    this.server?.close();
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
  }
}
