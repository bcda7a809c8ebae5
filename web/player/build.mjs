// Bundles the player page into dist/, from where the node embeds it: index.html and assets/.
import { build } from "esbuild";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { put } from "../put.mjs";

const here = new URL(".", import.meta.url).pathname;
const { outputFiles } = await build({
  entryPoints: [`${here}src/main.ts`],
  outfile: `${here}dist/assets/main.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  write: false,
});
const script = outputFiles[0].contents;
const files = new Map([
  ["index.html", await readFile(`${here}src/index.html`)],
  ["assets/style.css", await readFile(`${here}src/style.css`)],
  ["assets/main.js", script],
]);
await put(`${here}dist`, files);
const size = gzipSync(script, { level: 9 }).length;
console.log(`player/dist/assets/main.js: ${script.length} bytes, ${size} gzipped, hls.js in it`);
