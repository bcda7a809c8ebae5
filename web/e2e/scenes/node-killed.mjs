// The only node, its signer with it, is killed for ten segments: all play on, and who came meanwhile is in the tree soon
// after the node is back.
import { fedBy, flawless, player, playOn } from "../players.mjs";
import { until } from "../processes.mjs";

export default async function nodeKilled(stage, say) {
  const tabs = [
    await player(stage, { fed: "by the CDN" }),
    await player(stage),
    await player(stage),
  ];
  await playOn(tabs, 2);
  const killed = performance.now();
  await stage.node.kill();
  const newcomer = await stage.viewer("player");
  await playOn([...tabs, newcomer], 10);
  const away = performance.now() - killed;
  const start = performance.now();
  await stage.startNode();
  const serves = performance.now();
  await until("the newcomer has a parent", () => fedBy(newcomer));
  const found = performance.now();
  await playOn([...tabs, newcomer], 3);
  await flawless(stage, [...tabs, newcomer]);
  const seconds = (from, to) => ((to - from) / 1000).toFixed(1);
  say(
    `away for ${(away / 1000).toFixed(1)} s, serves ${seconds(start, serves)} s after its start;`,
  );
  say(`  a newcomer of that time has a parent ${seconds(serves, found)} s later; no stall`);
}
