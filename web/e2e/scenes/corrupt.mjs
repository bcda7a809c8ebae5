// A native parent alters one frame in twenty: its children notice, and nothing of it reaches a player.
import { flawless, player, playOn, statistics } from "../players.mjs";
import { until } from "../processes.mjs";

export default async function corrupt(stage, say) {
  await stage.native({ program: "espalier-hostile-peer" });
  // A pair is separated as soon as it is noticed: from whom they take later is not the point.
  const tabs = [await player(stage, { fed: "" }), await player(stage, { fed: "" })];
  const noticed = async () => {
    const counts = await Promise.all(tabs.map(statistics));
    return counts.reduce((sum, count) => sum + (count?.corruptChunks ?? 0), 0);
  };
  await until("a corrupt chunk is noticed", async () => (await noticed()) > 0);
  await playOn(tabs, 6);
  await flawless(stage, tabs);
  say(`${await noticed()} corrupt chunks noticed, none stored; 6 segments on, no stall`);
}
