// Viewers in real Chromium, in one tree: every byte compared with the origin's.
import { createHash } from "node:crypto";
import { Stage, until } from "./stage.mjs";

const stage = await Stage.set();
const tabs = [];
try {
  for (let count = 0; count < 2; count++) {
    const tab = await stage.viewer();
    tabs.push(tab);
    await until("a session and a complete segment", 20, async () => {
      const complete = await tab.evaluate(() => window.complete());
      return complete.length > 0;
    });
  }
  const fromPeers = async () =>
    (await tabs[1].evaluate(() => window.espalier.statistics())).bytesFromPeers;
  await until(
    "a megabyte from the first viewer to the second",
    30,
    async () => (await fromPeers()) > 1e6,
  );
  for (const [index, tab] of tabs.entries()) {
    const complete = await tab.evaluate(() => window.complete());
    for (const { uri, hash } of complete) {
      const bytes = await stage.file(uri.split("/").pop());
      if (createHash("sha256").update(bytes).digest("hex") !== hash)
        throw new Error(`viewer ${index} got other bytes of ${uri} than the origin has`);
    }
    const statistics = await tab.evaluate(() => window.espalier.statistics());
    console.log(
      `viewer ${index}: ${complete.length} segments, all as the origin has them;`,
      JSON.stringify(statistics),
    );
    if (statistics.corruptChunks > 0) throw new Error("a chunk was corrupt");
  }

  // hls.js beside them: it plays, and once it runs its segments come from the tree.
  const player = await stage.viewer("e2e/player.html");
  tabs.push(player);
  await until(
    "150 frames on the screen",
    40,
    async () => (await player.evaluate(() => window.played())) > 150,
  );
  const { bytesFromPeers, corruptChunks } = await player.evaluate(() =>
    window.espalier.statistics(),
  );
  const { stalls, errors } = await player.evaluate(() => window.state);
  console.log("player:", JSON.stringify({ bytesFromPeers, corruptChunks, stalls, errors }));
  if (bytesFromPeers < 5e5 || corruptChunks > 0 || stalls > 0)
    throw new Error("the player does not play from the tree");
} catch (error) {
  for (const tab of tabs) {
    console.log(tab.log.join("\n"));
    console.log(
      await tab
        .evaluate(() => JSON.stringify([window.state?.problem, window.espalier?.statistics()]))
        .catch(String),
    );
  }
  console.log(stage.orchestrator?.log.slice(-3000));
  throw error;
} finally {
  await stage.clear();
}
