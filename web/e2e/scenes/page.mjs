// The node's own player page: nothing is told to others before it was allowed; then it plays from a native peer, serves
// another page, and says so. Makes pictures: in docs/player/ if PICTURES is set, else in target/pictures/player/.
import { mkdir } from "node:fs/promises";
import { until } from "../processes.mjs";

const PICTURES = process.env.PICTURES ? "docs" : "target/pictures";
const pictures = new URL(`../../../${PICTURES}/player/`, import.meta.url).pathname;

export default async function page(stage, say) {
  await mkdir(pictures, { recursive: true });
  const native = await stage.native({ upload: "2mbit" });
  const uri = `${stage.endpoint}/watch/page`;
  const size = { viewport: { width: 1280, height: 860 } };
  const first = await stage.tab(`${uri}#token=${stage.apiToken}`, size);
  const picture = (name, tab = first) => tab.screenshot({ path: `${pictures}${name}.png` });
  const text = (tab, id) => tab.locator(`#${id}`).textContent();
  const playing = (tab) =>
    until("it plays", () =>
      tab.evaluate(
        () => document.querySelector("#video").getVideoPlaybackQuality().totalVideoFrames > 30,
      ),
    );

  await playing(first);
  if (
    (await text(first, "children")) !== "0" ||
    (await first.evaluate(() => document.location.hash))
  )
    throw new Error("it was in the tree before it was asked, or the token stands in the address");
  await picture("alone");

  await first.getByLabel("Share what you watch").check();
  await until("fed by the native peer", async () => {
    return (await text(first, "place-words")).includes(native.id.slice(0, 8));
  });
  await until("its depth is known", async () => {
    return (await text(first, "place-words")).includes("2 from the CDN");
  });

  // A viewer's own token does, without an account; the keyboard too.
  const second = await stage.tab(uri, { ...size, colorScheme: "dark" });
  await second.fill("#token", stage.token);
  await second.keyboard.press("Enter");
  await second.locator("input[value=receive]").focus();
  await second.keyboard.press("Space");
  await playing(second);
  await until("the first page serves the second", async () => {
    return (
      (await text(first, "children")) === "1" && (await text(first, "to-peers")).includes("MB")
    );
  });
  await until("bytes from other viewers", async () => {
    return (await text(first, "from-peers")).includes("MB");
  });
  await until("and the second says so", async () => {
    return (await text(second, "from-peers")).includes("MB");
  });
  await picture("watching");
  await picture("dark", second);
  await second.setViewportSize({ width: 390, height: 1300 });
  await picture("telephone", second);
  for (const tab of [first, second]) {
    const [words, peers, cdn, stalls, corrupt] = await Promise.all(
      ["place-words", "from-peers", "from-cdn", "stalls", "corrupt"].map((id) => text(tab, id)),
    );
    say(`${words} ${peers} from viewers, ${cdn} from the CDN, ${stalls} stalls`);
    if (stalls !== "0" || corrupt !== "0") throw new Error("it stalled, or had a corrupt chunk");
    const refused = tab.log.filter((line) => /Content Security|Error/.test(line));
    if (refused.length > 0) throw new Error(refused.join("\n"));
  }
}
