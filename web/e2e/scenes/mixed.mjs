// One tree of browsers and native peers: a browser under a native peer, and a native peer under a browser.
import { until } from "../processes.mjs";
import { sha256 } from "../stage.mjs";

const ENOUGH = 4;

/** Segments as a native peer serves them to a player, compared with the origin's. */
async function native(stage, peer, say) {
  const seen = new Map();
  await until("segments at the native peer", async () => {
    const master = await (await fetch(peer.url)).text();
    const uri = master.split("\n").find((line) => line && !line.startsWith("#"));
    const media = new URL(uri, peer.url);
    const text = media.pathname.endsWith(".ts") ? master : await (await fetch(media)).text();
    for (const line of text.split("\n").filter((line) => line.includes(".ts"))) {
      if (seen.has(line)) continue;
      const answer = await fetch(new URL(line, media));
      seen.set(line, sha256(Buffer.from(await answer.arrayBuffer())));
    }
    return seen.size >= ENOUGH;
  });
  say(`native: ${seen.size} segments`);
  // It names them epoch-sequence.ts; the origin's are numbered alike.
  const number = (line) => /-(\d+)\.ts/.exec(line)[1];
  await stage.compare([...seen].map(([line, hash]) => ({ uri: `seg-${number(line)}.ts`, hash })));
}

export default async function mixed(stage, say) {
  // The native root can feed one child; so the browser below it feeds who comes last.
  const root = await stage.native({ upload: "2mbit" });
  const tab = await stage.viewer();
  const fedBy = () =>
    tab.evaluate(() => window.espalier.statistics()?.sources[0]?.source?.peer ?? "");
  await until("the browser is fed by the native peer", async () => (await fedBy()) === root.id);
  const leaf = await stage.native({ consumer: true });
  await until("the browser feeds the other native peer", async () => {
    const { children, bytesToPeers } = await tab.evaluate(() => window.espalier.statistics());
    return children.includes(leaf.id) && bytesToPeers > 1e6;
  });
  await until("a megabyte from the native peer", async () => {
    return (await tab.evaluate(() => window.espalier.statistics().bytesFromPeers)) > 1e6;
  });
  if ((await fedBy()) !== root.id)
    throw new Error("the browser is no longer under the native peer");
  const complete = await tab.evaluate(() => window.complete());
  await stage.compare(complete);
  const { bytesFromPeers, bytesFromCdn, bytesToPeers, corruptChunks } = await tab.evaluate(() =>
    window.espalier.statistics(),
  );
  say(`browser: ${complete.length} segments, ${bytesFromPeers} bytes from the native peer above,`);
  say(`  ${bytesFromCdn} from the CDN, ${bytesToPeers} to the one below`);
  if (corruptChunks > 0) throw new Error("a chunk was corrupt");
  await native(stage, leaf, say);
}
