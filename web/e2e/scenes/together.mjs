// The second viewer gets its bytes from the first, and hls.js beside them plays from the tree.
import { until } from "../processes.mjs";

export default async function together(stage, say) {
  const tabs = [];
  for (let count = 0; count < 2; count++) {
    const tab = await stage.viewer();
    tabs.push(tab);
    await until("a complete segment", async () => {
      return (await tab.evaluate(() => window.complete())).length > 0;
    });
  }
  const fromPeers = (tab) => tab.evaluate(() => window.espalier.statistics().bytesFromPeers);
  await until(
    "a megabyte from the first viewer to the second",
    async () => (await fromPeers(tabs[1])) > 1e6,
  );
  for (const [index, tab] of tabs.entries()) {
    const complete = await tab.evaluate(() => window.complete());
    await stage.compare(complete);
    const { corruptChunks, bytesFromCdn, bytesFromPeers } = await tab.evaluate(() =>
      window.espalier.statistics(),
    );
    say(`viewer ${index}: ${complete.length} segments, ${bytesFromCdn} bytes from the CDN,`);
    say(`  ${bytesFromPeers} from peers; all as the origin has them`);
    if (corruptChunks > 0) throw new Error("a chunk was corrupt");
  }
  const player = await stage.viewer("player");
  await until(
    "150 frames on the screen",
    async () => (await player.evaluate(() => window.played())) > 150,
  );
  await stage.compare(await player.evaluate(() => window.state.fragments));
  const { stalls, errors } = await player.evaluate(() => window.state);
  say(`hls.js: ${await fromPeers(player)} bytes from peers, ${stalls} stalls, errors:`, errors);
  if ((await fromPeers(player)) < 5e5 || stalls > 0)
    throw new Error("the player does not play from the tree");
}
