/** The player page: who watches, with what consent, and beside the stream what the tree does for it. */
import { ConnectError } from "@connectrpc/connect";
import type { Consent } from "@espalier/client";
import { EspalierPlayer } from "@espalier/hls.js";
import Hls from "hls.js";
import { Api } from "./api.js";
import { Panel } from "./panel.js";
import type { Node } from "./place.js";

const KEPT_TOKEN = "espalier-watch-token";
const KEPT_CONSENT = "espalier-consent";
const get = (id: string) => document.getElementById(id) as HTMLElement;
const channel = decodeURIComponent(location.pathname.split("/").pop() ?? "");
const fragment = new URLSearchParams(location.hash.slice(1));

/** A viewer's token is signed and so has three parts; an API token has not. */
const isViewerToken = (token: string) => token.split(".").length === 3;

async function watch(shown: string): Promise<void> {
  const api = isViewerToken(shown) ? undefined : new Api(location.origin, shown, channel);
  let source: string | undefined;
  try {
    source = await api?.source();
  } catch (error) {
    get("login").hidden = false;
    get("login-problem").textContent = ConnectError.from(error).rawMessage;
    return;
  }
  sessionStorage.setItem(KEPT_TOKEN, shown);
  get("login").hidden = true;
  get("app").hidden = false;
  get("channel").textContent = channel;
  document.title = `${channel} · Espalier`;
  play(api, shown, source ?? fragment.get("source") ?? undefined);
}

function play(api: Api | undefined, shown: string, known: string | undefined): void {
  const video = get("video") as HTMLVideoElement;
  const panel = new Panel(video);
  let nodes: readonly Node[] = [];
  let source = known;
  // Nobody's address is told to anybody before that was chosen here.
  let consent = keptConsent() ?? "off";
  const load = (uri: string) => {
    if (hls.url === null) hls.loadSource(uri);
  };
  const player = new EspalierPlayer({
    endpoints: [location.origin],
    channel,
    token: () => api?.viewerToken() ?? shown,
    consent,
    onSession: (problem) => {
      panel.session(consent, problem);
    },
    onOrigin: (uri) => {
      source ??= uri;
      load(source);
    },
  });
  const hls = new Hls(player.config());
  hls.attachMedia(video);
  if (source !== undefined) load(source);
  for (const choice of document.querySelectorAll<HTMLInputElement>("[name=consent]")) {
    choice.checked = choice.value === keptConsent();
    choice.onchange = () => {
      consent = choice.value as Consent;
      localStorage.setItem(KEPT_CONSENT, consent);
      panel.session(consent, undefined, source === undefined);
      player.setConsent(consent);
    };
  }
  panel.session(consent, consent === "off" ? undefined : "connecting", source === undefined);
  void api?.watch((now) => (nodes = now));
  setInterval(() => {
    panel.show(player, hls, nodes);
  }, 500);
}

function keptConsent(): Consent | undefined {
  const kept = localStorage.getItem(KEPT_CONSENT);
  return kept === "off" || kept === "receive" || kept === "share" ? kept : undefined;
}

get("login").onsubmit = (event) => {
  event.preventDefault();
  void watch((get("token") as HTMLInputElement).value.trim());
};

// A link may bring the token in its fragment, which browsers send to nobody; it does not stay in the address.
const brought = fragment.get("token");
if (brought !== null) history.replaceState(null, "", location.pathname);
const token = brought ?? sessionStorage.getItem(KEPT_TOKEN);
if (token) void watch(token);
else get("login").hidden = false;
