// The dashboard: logs in, follows one channel and the cluster, and shows them.
import { api as clients, follow, type Api } from "./api.js";
import { ask, element } from "./ask.js";
import type { Census } from "./census.js";
import { Chart } from "./charts.js";
import { showCluster } from "./cluster.js";
import { OriginState, type Channel } from "./gen/espalier/v1/channel_pb.js";
import { LOOKS, TreeView } from "./tree-view.js";
import type { Asked, Told } from "./worker.js";
import { ConnectError } from "@connectrpc/connect";

const KEPT = "espalier-api-token";
const get = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const selector = get<HTMLSelectElement>("channel");
const parts = get<HTMLSelectElement>("part");
const facts = get("facts");
const worker = new Worker("/assets/worker.js", { type: "module" });
const tell = (asked: Asked) => worker.postMessage(asked);

let api: Api;
let token = "";
let watching = new AbortController();
let channel: Channel | undefined;
let latest: Census | undefined;
let before: { at: number; cdn: number; peers: number } | undefined;

const view = new TreeView(get<HTMLCanvasElement>("canvas"), (peer, x, y) => {
  facts.hidden = peer === undefined;
  if (peer === undefined) return;
  const canvas = get("canvas");
  facts.style.left = `${canvas.offsetLeft + Math.min(x + 14, canvas.clientWidth - 220)}px`;
  facts.style.top = `${canvas.offsetTop + y + 14}px`;
  tell({ kind: "facts", peer });
});

const [orange, blue, green] = ["#d55e00", "#0072b2", "#009e73"];
const percent = (value: number) => `${(value * 100).toFixed(0)} %`;
const seconds = (value: number) => `${(value / 1000).toFixed(1)} s`;
const rate = (value: number) => `${(value / 1e6).toFixed(1)} Mbit/s`;
const whole = (value: number) => value.toFixed(0);
let charts: { audience: Chart; offload: Chart; traffic: Chart; latency: Chart } | undefined;

function makeCharts() {
  const at = get("charts");
  return {
    audience: new Chart(at, "Audience", [["peers", blue], ["roots", orange, [6, 4]]], whole),
    offload: new Chart(at, "Offload", [["offload", green], ["buffering", orange, [6, 4]]], percent),
    traffic: new Chart(at, "Traffic", [["from peers", blue], ["from the CDN", orange, [6, 4]]], rate),
    latency: new Chart(at, "Live latency", [["upper quartile", orange, [2, 3]], ["median", blue], ["lower quartile", green, [6, 4]]], seconds),
  };
}

worker.onmessage = ({ data }: MessageEvent<Told>) => {
  if (data.kind === "facts") facts.textContent = data.text;
  if (data.kind === "lost") state(`reconnecting: ${data.problem}`);
  if (data.kind !== "tree") return;
  options(parts, data.parts, data.part);
  view.show(data.picture);
  latest = data.census;
  get("count").textContent = `${data.picture.ids.length} peers`;
  showBars(data.census);
};

function state(text: string): void { get("state").textContent = text; }

function options(select: HTMLSelectElement, values: string[], chosen: string): void {
  const now = [...select.options].map((option) => option.value);
  if (now.join("\n") !== values.join("\n")) select.replaceChildren(...values.map((value) => new Option(value, value)));
  select.value = chosen;
}

function watch(name: string): void {
  watching.abort();
  watching = new AbortController();
  before = latest = channel = undefined;
  for (const chart of Object.values(charts ?? {})) chart.clear();
  get("figures").replaceChildren();
  if (!name) return state("there is no channel yet");
  state("connecting");
  history.replaceState(null, "", `?channel=${name.replace("channels/", "")}`);
  tell({ kind: "watch", endpoint: location.origin, token, channel: name });
  void follow((signal) => api.channels.watchChannel({ name }, { signal }), watching.signal, showChannel, (problem) => state(`reconnecting: ${problem}`));
}

function showChannel(now: Channel): void {
  channel = now;
  const origin = (OriginState[now.originState] ?? "").toLowerCase();
  state(`live · origin ${origin}${now.originProblem ? `: ${now.originProblem}` : ""}${now.degraded ? " · DEGRADED" : ""}`);
  const audience = now.audience;
  if (!audience) return;
  const at = Date.now() / 1000;
  const [cdn, peers] = [Number(audience.bytesFromCdn), Number(audience.bytesFromPeers)];
  // A new owner counts from zero.
  const since = before && cdn >= before.cdn && peers >= before.peers && at > before.at ? before : undefined;
  const bps = (bytes: number) => (since ? (bytes * 8) / (at - since.at) : NaN);
  const [cdnBps, peerBps] = [bps(cdn - (since?.cdn ?? 0)), bps(peers - (since?.peers ?? 0))];
  before = { at, cdn, peers };
  charts?.audience.add(at, [audience.peers, audience.roots]);
  charts?.offload.add(at, [audience.offload, latest?.buffering ?? NaN]);
  charts?.traffic.add(at, [peerBps, cdnBps]);
  const [low, median, high] = latest?.latency ?? [NaN, NaN, NaN];
  charts?.latency.add(at, [high, median, low]);
  const bytes = (value: number) => `${(value / 1e9).toFixed(2)} GB`;
  figures([
    ["Peers", whole(audience.peers)], ["Roots", whole(audience.roots)], ["Depth", whole(audience.maxDepth)],
    ["Offload (10 s)", `${(audience.offload * 100).toFixed(1)} %`], ["From the CDN", bytes(cdn)], ["From peers", bytes(peers)],
    ["Stalls", audience.stalls.toString()], ["Buffering now", latest ? percent(latest.buffering) : "–"],
    ["Median latency", Number.isFinite(median) ? seconds(median) : "–"], ["Suspects", whole(now.suspects.length)],
  ]);
}

function figures(values: [string, string][]): void {
  get("figures").replaceChildren(...values.map(([label, value]) => {
    const figure = element("div");
    figure.className = "figure";
    figure.dataset["figure"] = label;
    figure.append(element("b", value), element("span", label));
    return figure;
  }));
}

function showBars({ groups, peers }: Census): void {
  get("bars").replaceChildren(...groups.map(({ title, counts }) => {
    const group = element("div");
    group.append(element("h2", title));
    for (const [label, count] of counts) {
      const row = element("div");
      row.className = "row";
      const meter = element("meter");
      meter.max = Math.max(1, peers);
      meter.value = count;
      row.append(element("span", label), meter, element("span", String(count)));
      group.append(row);
    }
    return group;
  }));
}

async function refresh(chosen?: string): Promise<void> {
  const names: string[] = [];
  let pageToken = "";
  do {
    const page = await api.channels.listChannels({ pageSize: 1000, pageToken });
    names.push(...page.channels.map((it) => it.name));
    pageToken = page.nextPageToken;
  } while (pageToken);
  const asked = `channels/${new URLSearchParams(location.search).get("channel") ?? ""}`;
  const next = [chosen, selector.value, asked].find((name) => name !== undefined && names.includes(name)) ?? names[0] ?? "";
  options(selector, names, next);
  watch(next);
}

async function logIn(shown: string): Promise<void> {
  api = clients(location.origin, shown);
  token = shown;
  get("login-problem").textContent = "";
  try {
    await api.channels.listChannels({ pageSize: 1 });
  } catch (error) {
    get("login").hidden = false;
    get("login-problem").textContent = ConnectError.from(error).rawMessage;
    return;
  }
  sessionStorage.setItem(KEPT, shown);
  get("login").hidden = true;
  get("app").hidden = false;
  charts ??= makeCharts();
  await refresh();
  void follow((signal) => api.cluster.watchCluster({}, { signal }), new AbortController().signal,
    (cluster) => showCluster(get("cluster"), api, cluster), () => undefined);
}

function policyOf(values: Record<string, string>) {
  const entries = Object.entries(values).filter(([, value]) => value !== "");
  return Object.fromEntries(entries.map(([key, value]) => [key, Number(value)]));
}

const POLICY: [field: string, path: string, label: string][] = [
  ["targetRoots", "target_roots", "Roots wanted"], ["maxPlannedRoots", "max_planned_roots", "Roots at the most"],
  ["maxDepth", "max_depth", "Depth at the most"], ["maxChildren", "max_children", "Children at the most"], ["stripes", "stripes", "Stripes"],
];

get("create").onclick = () => ask("New channel", "The node signs its segments from now on.", [
  { name: "id", label: "Id: a-z, 0-9 and -", required: true }, { name: "origin", label: "HLS playlist", required: true },
], "Create", async ({ id = "", origin = "" }) => {
  const made = await api.channels.createChannel({ channelId: id, channel: { originUri: origin } });
  await refresh(made.name);
  return undefined;
});
get("change").onclick = () => {
  if (!channel) return;
  const { name, policy, etag } = channel;
  const known = policy as Record<string, unknown> | undefined;
  const fields = POLICY.map(([field, , label]) => ({ name: field, label: `${label} (empty: the default)`, type: "number" as const, value: String(known?.[field] ?? "") }));
  ask(`Policy of ${name}`, "The trees follow within their limits of moves.", fields, "Change", async (values) => {
    const updateMask = { paths: POLICY.map(([, path]) => `policy.${path}`) };
    await api.channels.updateChannel({ channel: { name, etag, policy: policyOf(values) }, updateMask });
    return undefined;
  });
};
get("issue").onclick = () => {
  const of = selector.value;
  ask("Viewer token", `Lets a viewer into ${of}.`, [{ name: "hours", label: "Hours", type: "number", value: "1", required: true }], "Issue",
    async ({ hours }) => (await api.channels.issueViewerToken({ channel: of, ttl: { seconds: BigInt(Math.round(Number(hours) * 3600)), nanos: 0 } })).token);
};
get("delete").onclick = () => {
  const name = selector.value;
  if (!name) return;
  ask(`Delete ${name}?`, "Every session of it ends. Write its id to confirm.", [{ name: "id", label: "Id", required: true }], "Delete", async ({ id }) => {
    if (`channels/${id}` !== name) throw new ConnectError("that is another id");
    await api.channels.deleteChannel({ name });
    await refresh();
    return undefined;
  });
};
get("logout").onclick = () => { sessionStorage.removeItem(KEPT); location.reload(); };
get("fit").onclick = () => view.fit();
get<HTMLInputElement>("standby").onchange = (event) => { view.showStandby = (event.target as HTMLInputElement).checked; view.redraw(); };
get<HTMLInputElement>("search").oninput = (event) => { view.find((event.target as HTMLInputElement).value.trim().toLowerCase()); };
selector.onchange = () => watch(selector.value);
parts.onchange = () => tell({ kind: "part", part: parts.value });
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
  event.preventDefault();
  get("search").focus();
});
get<HTMLFormElement>("login").onsubmit = (event) => { event.preventDefault(); void logIn(get<HTMLInputElement>("token").value.trim()); };

const MARKS = { square: "■", diamond: "◆", disc: "●", ring: "○", triangle: "▲" };
get("legend").append(...Object.values(LOOKS).map((look) => element("li", `${MARKS[look.shape]} ${look.label}`)), element("li", "╌ standby link"));

// A link may bring the token in its fragment, which browsers send to nobody; it does not stay in the address.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) history.replaceState(null, "", location.pathname + location.search);
const known = brought ?? sessionStorage.getItem(KEPT);
if (known) void logIn(known);
else get("login").hidden = false;
