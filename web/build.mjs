// Bundles the packages for pages without a bundler, and says how big they are.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

const bundles = [
  ["client/src/index.ts", "client/dist/espalier.bundle.js"],
  ["hls/src/index.ts", "hls/dist/espalier-hls.bundle.js"],
];

for (const [entry, outfile] of bundles) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["hls.js"],
    write: false,
  });
  const { writeFile, mkdir } = await import("node:fs/promises");
  for (const { path, contents } of outputFiles) {
    await mkdir(path.replace(/\/[^/]*$/, ""), { recursive: true });
    await writeFile(path, contents);
    const size = gzipSync(contents, { level: 9 }).length;
    console.log(`${outfile}: ${contents.length} bytes, ${size} gzipped`);
  }
}
