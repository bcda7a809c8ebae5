// A live stream, the CDN before it that counts what is asked of it, and the workspace's pages and bundles.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { Program, until } from "./processes.mjs";

const WEB = new URL("..", import.meta.url).pathname;
const TYPES = {
  js: "text/javascript",
  mjs: "text/javascript",
  html: "text/html",
  m3u8: "application/vnd.apple.mpegurl",
  ts: "video/mp2t",
};

export class Origin {
  /** Media that viewers fetched: path and bytes; the signer's own reading is not counted. */
  media = [];

  constructor(directory) {
    this.directory = directory;
  }

  async start() {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch(() => {
        if (!response.headersSent) response.writeHead(404);
        response.end();
      });
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.uri = `http://127.0.0.1:${this.server.address().port}`;
    this.playlist = `${this.uri}/live/live.m3u8`;
    const words =
      "-nostdin -loglevel error -re -f lavfi -i testsrc2=size=320x180:rate=15 -re -f lavfi -i sine " +
      "-c:v libx264 -preset ultrafast -tune zerolatency -g 30 -keyint_min 30 -sc_threshold 0 -x264-params nal-hrd=cbr " +
      "-b:v 1400k -minrate 1400k -maxrate 1400k -bufsize 1400k -c:a aac -b:a 64k " +
      "-f hls -hls_time 2 -hls_list_size 15 " +
      "-hls_flags program_date_time+temp_file -hls_segment_filename seg-%d.ts live.m3u8";
    this.encoder = new Program("ffmpeg", words.split(" "), { cwd: this.directory });
    await until("four segments", async () => {
      if (!this.encoder.running) throw new Error(this.encoder.log);
      return (
        (await readFile(join(this.directory, "live.m3u8"), "utf8")).split("#EXTINF").length > 4
      );
    });
  }

  /** `/live/` is the CDN; everything else is the workspace's own. */
  async answer(request, response) {
    const { pathname } = new URL(request.url, this.uri);
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Allow-Headers", "range");
    if (request.method === "OPTIONS") return response.writeHead(204).end();
    const live = pathname.startsWith("/live/");
    const path = live ? join(this.directory, pathname.slice(6)) : join(WEB, pathname);
    const { size } = await stat(path);
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = range ? [+range[1], Math.min(+range[2], size - 1)] : [0, size - 1];
    if (live && path.endsWith(".ts") && request.headers["x-peer-id"] !== "signer")
      this.media.push({ path: pathname, bytes: end - start + 1 });
    response.writeHead(range ? 206 : 200, {
      "Content-Type": TYPES[path.split(".").pop()] ?? "application/octet-stream",
      "Content-Length": end - start + 1,
      ...(range && { "Content-Range": `bytes ${start}-${end}/${size}` }),
    });
    createReadStream(path, { start, end }).pipe(response);
  }

  /** The bytes of a segment as they are here, by any URI of it. */
  file(uri) {
    return readFile(join(this.directory, new URL(uri, this.uri).pathname.split("/").pop()));
  }

  async end() {
    await this.encoder?.end();
    this.server?.closeAllConnections();
    this.server?.close();
  }
}
