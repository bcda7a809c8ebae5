// The dashboard in a real browser, before a real node: values as the API has them, a tree that grows and heals,
// what a person can change, and how smooth a large tree is. Makes pictures.
//
//   node test/dashboard.mjs [PEERS] [--pictures]
//
// The node is the one in ESPALIER_BIN_DIR, by default target/release, built after the dashboard. Pictures go to
// docs/dashboard/ if they are asked for, else to target/pictures/dashboard/.
// With 10,000 peers and more it has to be smooth; with fewer, on a machine that checks, it has to keep moving.
//
// Peers here are sessions that say what peers say and pass no media; everything else is the product.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { mkdir } from "node:fs/promises";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { Peers, api } from "./peers.mjs";

const root = new URL("../../../", import.meta.url).pathname;
const program = `${process.env.ESPALIER_BIN_DIR ?? `${root}target/release`}/espalier-orchestrator`;
const words = process.argv.slice(2);
const crowd = words.find((word) => !word.startsWith("-")) ?? "10000";
const pictures = `${root}${words.includes("--pictures") ? "docs" : "target/pictures"}/dashboard/`;
const smooth = Number(crowd) >= 10_000 ? 30 : 5;
/** How long whatever the test waits for may take: a machine that checks is slow and has other work. */
const PATIENCE = 120_000;
await mkdir(pictures, { recursive: true });

const origin = createServer((request, response) => {
  if (request.url?.endsWith(".ts")) return response.end(Buffer.alloc(25_000, 0x47));
  const segments = [10, 11, 12, 13].map((number) => `#EXTINF:2.0,\n${number}.ts\n`).join("");
  response.end(`#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:10\n${segments}`);
}).listen(0, "127.0.0.1");
const originUri = () => `http://127.0.0.1:${origin.address().port}/live.m3u8`;

const node = spawn("setpriv", ["--pdeathsig", "KILL", program, "--dev", "--listen", "127.0.0.1:0", "--log-level", "warn"], { stdio: ["ignore", "pipe", "inherit"] });
const said = {};
for await (const line of createInterface(node.stdout)) {
  const [key, value] = line.split("=");
  said[key] = value;
  if (said.ESPALIER_ENDPOINT && said.ESPALIER_TOKEN) break;
}
assert.ok(said.ESPALIER_TOKEN, `${program} ended before it served`);
const [endpoint, token] = [said.ESPALIER_ENDPOINT, said.ESPALIER_TOKEN];
const calls = api(endpoint, token);
const browser = await chromium.launch({ timeout: PATIENCE, executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const peers = new Peers(endpoint);

/** Waits for a condition, with a deadline. */
async function until(what, ask, within = PATIENCE) {
  const end = Date.now() + within;
  for (let problem = ""; ;) {
    // A call may fail as long as what it asks about is not there yet.
    const answer = await ask().catch((error) => void (problem = String(error)));
    if (answer) return answer;
    assert.ok(Date.now() < end, `it took too long: ${what} ${problem}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function scene(name, run) {
  const start = Date.now();
  await run();
  console.log(`ok ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

try {
  const page = await browser.newPage({ viewport: { width: 1400, height: 1000 }, colorScheme: "light" });
  page.setDefaultTimeout(PATIENCE);
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  const figure = (name) => page.locator(`[data-figure="${name}"] b`).textContent();
  const picture = (name) => page.screenshot({ path: `${pictures}${name}.png` });

  await scene("a wrong token is refused, a right one lets in", async () => {
    await page.goto(endpoint);
    await page.fill("#token", "wrong");
    await page.click("#login button");
    await page.waitForFunction(() => document.querySelector("#login-problem").textContent !== "");
    await picture("login");
    await page.fill("#token", token);
    await page.click("#login button");
    await page.waitForSelector("#app:not([hidden])");
  });

  await scene("a channel is created, and its tree is as the API's while it grows", async () => {
    await page.click("#create");
    await page.fill('[name="id"]', "news");
    await page.fill('[name="origin"]', originUri());
    await picture("new-channel");
    await page.click("#dialog button:text('Create')");
    await until("tracks", async () => (await calls.channels.getChannel({ name: "channels/news" })).tracks.length > 0);
    await peers.join("channels/news", await calls.viewerToken("news"), 40);
    await until("forty peers are shown", async () => (await figure("Peers")) === "40");
    const audience = async () => (await calls.channels.getChannel({ name: "channels/news" })).audience;
    await until("equal to the API", async () => {
      const now = await audience();
      return (await figure("Roots")) === String(now.roots) && (await figure("Depth")) === String(now.maxDepth);
    });
    await page.waitForFunction(() => document.querySelector("#count").textContent === "40 peers");
    await picture("channel");
    await page.emulateMedia({ colorScheme: "dark" });
    await picture("channel-dark");
    await page.emulateMedia({ colorScheme: "light" });
  });

  await scene("the tree heals when peers leave", async () => {
    await peers.leave(10);
    await until("thirty peers are shown", async () => (await figure("Peers")) === "30");
    await page.waitForFunction(() => document.querySelector("#count").textContent === "30 peers");
    const { findings } = await calls.topology.checkTopology({ channel: "channels/news" });
    assert.deepEqual(findings, []);
  });

  await scene("a peer is found and its facts are shown", async () => {
    await page.keyboard.press("/");
    await page.fill("#search", peers.ids()[0]);
    await page.waitForFunction((id) => document.querySelector("#facts").textContent.startsWith(id), peers.ids()[0]);
    await picture("peer");
    await page.fill("#search", "");
    await page.click("#fit");
  });

  await scene("policy, token and drain: a question first, then the API's answer", async () => {
    await page.click("#change");
    await page.fill('[name="targetRoots"]', "3");
    await picture("policy");
    await page.click("#dialog button:text('Change')");
    await until("three roots are wanted", async () => (await calls.channels.getChannel({ name: "channels/news" })).policy?.targetRoots === 3);
    await page.click("#issue");
    await page.click("#dialog button:text('Issue')");
    const issued = await page.inputValue("#dialog textarea");
    assert.equal(issued.split(".").length, 3);
    await page.click("#dialog button:text('Close')");
    await page.click("#cluster button:text('Drain')");
    await picture("drain");
    await page.click("#dialog .buttons button:text('Drain')");
    await page.waitForFunction(() => document.querySelector("#dialog .problem").textContent !== "");
    await page.click("#dialog button:text('Cancel')");
    await page.locator("#cluster").scrollIntoViewIfNeeded();
    await page.click("#cluster summary");
    await picture("cluster");
  });

  await scene("on a telephone", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await page.evaluate(() => scrollTo(0, 0));
    await picture("telephone");
    await page.setViewportSize({ width: 1400, height: 1000 });
  });

  await scene(`${crowd} peers while updates arrive`, async () => {
    await peers.join("channels/news", await calls.viewerToken("news"), Number(crowd) - 30);
    await until("all are shown", async () => (await figure("Peers")) === crowd, 2 * PATIENCE);
    await page.waitForFunction((all) => document.querySelector("#count").textContent === `${all} peers`, crowd);
    const churn = peers.reports();
    const box = await page.locator("#canvas").boundingBox();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    const measured = page.evaluate(() => new Promise((resolve) => {
      const times = [];
      const frame = (now) => {
        times.push(now);
        if (now - times[0] < 10_000) requestAnimationFrame(frame);
        else resolve(times);
      };
      requestAnimationFrame(frame);
    }));
    let moving = true;
    void measured.then(() => (moving = false));
    await page.mouse.move(x, y);
    for (let turn = 0; moving; turn++) {
      await page.mouse.wheel(0, turn % 20 < 10 ? -30 : 30);
    }
    const times = await measured;
    churn.stop();
    const gaps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
    const rate = (1000 * gaps.length) / (times.at(-1) - times[0]);
    const late = gaps[Math.floor(gaps.length * 0.95)];
    console.log(`frames per second ${rate.toFixed(1)}, 95th percentile between frames ${late.toFixed(1)} ms, longest ${gaps.at(-1).toFixed(1)} ms`);
    await page.click("#fit");
    await picture("large");
    assert.ok(rate >= smooth, `only ${rate.toFixed(1)} frames per second`);
  });

  await scene("a channel is deleted by its id only", async () => {
    await page.click("#delete");
    await page.fill('[name="id"]', "other");
    await page.click("#dialog .buttons button:text('Delete')");
    await page.waitForFunction(() => document.querySelector("#dialog .problem").textContent !== "");
    await page.fill('[name="id"]', "news");
    await page.click("#dialog .buttons button:text('Delete')");
    await until("the channel is gone", async () => (await calls.channels.listChannels({})).channels.length === 0);
  });
  const unexpected = problems.filter((problem) => !/status of 4\d\d|ERR_/.test(problem));
  assert.deepEqual(unexpected, []);
} finally {
  await browser.close();
  peers.end();
  origin.close();
  node.kill("SIGTERM");
  // It takes its temporary data with it.
  const late = setTimeout(() => node.kill("SIGKILL"), 10_000);
  if (node.exitCode === null) await once(node, "exit");
  clearTimeout(late);
}
