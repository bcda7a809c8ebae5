// A tab that feeds another is hidden, and so slowed down, for thirty segments: it serves on.
import { fedBy, flawless, idOf, player, playOn, statistics } from "../players.mjs";
import { until } from "../processes.mjs";

export default async function hidden(stage, say) {
  const parent = await player(stage, { fed: "by the CDN", hideable: true });
  const child = await player(stage);
  const id = await idOf(parent);
  if ((await fedBy(child)) !== id) throw new Error("the first viewer does not feed the second");
  await parent.hide();
  await until("the tab is hidden", () => parent.evaluate(() => document.hidden));
  const before = (await statistics(parent)).bytesToPeers;
  await playOn([child], 30);
  if (!(await parent.evaluate(() => document.hidden))) throw new Error("it was shown again");
  await flawless(stage, [child, parent]);
  const { bytesToPeers } = await statistics(parent);
  const still = (await fedBy(child)) === id;
  say(`hidden for 30 segments it sent ${bytesToPeers - before} bytes; no stall;`);
  say(`  the child is ${still ? "still" : "no longer"} fed by it`);
  if (bytesToPeers - before < 5e6) throw new Error("it did not serve on");
}
