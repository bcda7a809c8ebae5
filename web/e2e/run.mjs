// Scenes in real Chromium, before a real node. `node e2e/run.mjs [SCENE...]`: all, or those whose names begin so.
import { readdir } from "node:fs/promises";
import { Stage } from "./stage.mjs";

const files = (await readdir(new URL("scenes/", import.meta.url))).sort();
const asked = process.argv.slice(2);
const names = files
  .map((file) => file.replace(/\.mjs$/, ""))
  .filter((name) => asked.length === 0 || asked.some((start) => name.startsWith(start)));
if (names.length === 0) throw new Error(`there is no such scene: ${files.join(", ")}`);

let stage = new Stage();
for (const signal of ["SIGINT", "SIGTERM"])
  process.once(signal, () => void stage.clear().finally(() => process.exit(130)));

async function play(name) {
  const { default: scene } = await import(`./scenes/${name}.mjs`);
  const start = performance.now();
  await stage.channel(name);
  await scene(stage, (...words) => console.log(`   ${name}:`, ...words));
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  await stage.tidy();
  return `${name} (${seconds} s)`;
}

/** The machine may be busy with others' work: what fails is played once more, on a fresh stage, and named as flaky. */
async function playTwice(name) {
  try {
    console.log("ok", await play(name));
  } catch (error) {
    await stage.explain();
    console.error(error);
    console.log(`   ${name} failed, and is played once more`);
    await stage.clear();
    stage = new Stage();
    await stage.set();
    console.log("FLAKY", await play(name));
  }
}

try {
  await stage.set();
  for (const name of names) await playTwice(name);
} catch (error) {
  await stage.explain();
  console.error(error);
  process.exitCode = 1;
} finally {
  await stage.clear();
}
