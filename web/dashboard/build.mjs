// Bundles the dashboard into dist/, from where the node embeds it: index.html and assets/.
import { build } from "esbuild";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";

await rm("dist", { recursive: true, force: true });
await mkdir("dist/assets", { recursive: true });
await build({
  entryPoints: { main: "src/main.ts", worker: "src/worker.ts" },
  outdir: "dist/assets",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
});
const charts = await readFile("node_modules/uplot/dist/uPlot.min.css", "utf8");
const own = await readFile("src/style.css", "utf8");
await writeFile("dist/assets/style.css", charts + own);
await cp("src/index.html", "dist/index.html");
