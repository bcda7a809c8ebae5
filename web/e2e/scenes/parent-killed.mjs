// The tab that feeds others is killed without a word: they play on.
import { fedBy, flawless, idOf, player, playOn, statistics } from "../players.mjs";
import { until } from "../processes.mjs";

export default async function parentKilled(stage, say) {
  const parent = await player(stage, { fed: "by the CDN" });
  const others = [await player(stage), await player(stage)];
  const id = await idOf(parent);
  const orphans = [];
  for (const tab of others) if ((await fedBy(tab)) === id) orphans.push(tab);
  if (orphans.length === 0) throw new Error("the first viewer feeds nobody");
  await playOn(others, 2);
  const session = await parent.context().newCDPSession(parent);
  // A crashed page answers no more, this call included.
  session.send("Page.crash").catch(() => undefined);
  const start = performance.now();
  await until("none is fed by it any more", async () => {
    const sources = await Promise.all(others.map(fedBy));
    return sources.every((source) => source !== id);
  });
  const took = performance.now() - start;
  await playOn(others, 6);
  await flawless(stage, others);
  const missed = await Promise.all(
    others.map(async (tab) => (await statistics(tab)).objectsMissed),
  );
  say(`${orphans.length} of ${others.length} lost their parent; without it after`);
  say(`  ${took.toFixed(0)} ms; 6 segments on, no stall; objects missed: ${missed}`);
}
