// Viewers with hls.js, as scenes look at them.
import { until } from "./processes.mjs";

export const statistics = (tab) => tab.evaluate(() => window.espalier.statistics());
const fragments = (tab) => tab.evaluate(() => window.state.fragments);

/** Whom a viewer takes from: a peer's id, or nothing. */
export const fedBy = async (tab) => (await statistics(tab))?.sources[0]?.source?.peer;

export const idOf = (tab) => tab.evaluate(() => window.espalier.peer);

/** A viewer that plays; `fed`: by another, by the CDN, or for the scene to find out. */
export async function player(stage, { fed = "by a peer", hideable = false } = {}) {
  const tab = await (hideable ? stage.hideableViewer() : stage.viewer("player"));
  await until("it plays", async () => (await tab.evaluate(() => window.played?.())) > 15);
  if (fed === "by a peer") await until("fed by a peer", () => fedBy(tab));
  if (fed === "by the CDN")
    await until("a root", async () => (await statistics(tab))?.sources[0]?.source === "cdn");
  return tab;
}

/** Each of them gets so many segments more. */
export async function playOn(tabs, count) {
  const before = await Promise.all(tabs.map(async (tab) => (await fragments(tab)).length));
  for (const [index, tab] of tabs.entries())
    await until(
      `viewer ${index} gets ${count} segments more`,
      async () => (await fragments(tab)).length >= before[index] + count,
    );
}

/** Nobody stalled, and hls.js got nothing but the origin's bytes. */
export async function flawless(stage, tabs) {
  for (const [index, tab] of tabs.entries()) {
    await stage.compare(await fragments(tab));
    const { stalls, errors } = await tab.evaluate(() => window.state);
    if (stalls > 0) throw new Error(`viewer ${index} stalled ${stalls} times: ${errors}`);
  }
}
