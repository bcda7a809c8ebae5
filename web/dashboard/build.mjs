// Bundles the dashboard into dist/, from where the node embeds it: index.html and assets/.
import { build } from "esbuild";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { put } from "../put.mjs";

const { outputFiles } = await build({
  entryPoints: { main: "src/main.ts", worker: "src/worker.ts" },
  outdir: "dist/assets",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  write: false,
});
const charts = await readFile("node_modules/uplot/dist/uPlot.min.css", "utf8");
const own = await readFile("src/style.css", "utf8");
await put("dist", new Map([
  ["index.html", await readFile("src/index.html")],
  ["assets/style.css", charts + own],
  ...outputFiles.map(({ path, contents }) => [`assets/${basename(path)}`, contents]),
]));
