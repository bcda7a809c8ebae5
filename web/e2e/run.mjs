// Scenes in real Chromium, before a real node. `node e2e/run.mjs [SCENE...]`: all, or those whose names begin so.
import { readdir } from "node:fs/promises";
import { Stage } from "./stage.mjs";

const files = (await readdir(new URL("scenes/", import.meta.url))).sort();
const asked = process.argv.slice(2);
const names = files
  .map((file) => file.replace(/\.mjs$/, ""))
  .filter((name) => asked.length === 0 || asked.some((start) => name.startsWith(start)));
if (names.length === 0) throw new Error(`there is no such scene: ${files.join(", ")}`);

const stage = new Stage();
for (const signal of ["SIGINT", "SIGTERM"])
  process.once(signal, () => void stage.clear().finally(() => process.exit(130)));

try {
  await stage.set();
  for (const name of names) {
    const { default: scene } = await import(`./scenes/${name}.mjs`);
    const start = performance.now();
    await stage.channel(name);
    await scene(stage, (...words) => console.log(`   ${name}:`, ...words));
    console.log(`ok ${name} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
    await stage.tidy();
  }
} catch (error) {
  await stage.explain();
  console.error(error);
  process.exitCode = 1;
} finally {
  await stage.clear();
}
