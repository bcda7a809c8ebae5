/** What is beside the stream: figures of this viewer, in words and numbers. It shows, and decides nothing. */
import type { Consent } from "@espalier/client";
import type { EspalierPlayer } from "@espalier/hls.js";
import type Hls from "hls.js";
import { placeOf, type Node } from "./place.js";

const get = (id: string) => document.getElementById(id) as HTMLElement;
const percent = (part: number) => `${(part * 100).toFixed(0)} %`;
const seconds = (value: number) => `${value.toFixed(1)} s`;

function size(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export class Panel {
  private stalls = 0;

  constructor(private readonly video: HTMLVideoElement) {
    video.addEventListener("waiting", () => {
      // Before the first picture it is a start, and after a seek it is asked for.
      if (video.currentTime > 1 && !video.seeking && video.readyState < 3) this.stalls += 1;
    });
  }

  session(consent: Consent, problem: string | undefined, sourceless = false): void {
    const alone = sourceless
      ? "this link does not say where the stream is: choose to receive or to share"
      : "alone, from the CDN";
    get("state").textContent =
      consent === "off" ? alone : problem ? `no node: ${problem}; it plays on` : "in the tree";
  }

  show(player: EspalierPlayer, hls: Hls, nodes: readonly Node[]): void {
    const { totals, viewer } = player;
    const all = totals.fromPeers + totals.fromCdn;
    const share = all > 0 ? totals.fromPeers / all : 0;
    const meter = get("share") as HTMLMeterElement;
    meter.value = share;
    meter.classList.toggle("none", all === 0);
    write("from-peers", size(totals.fromPeers));
    write("from-cdn", size(totals.fromCdn));
    write("saved", all > 0 ? percent(share) : "–");
    write("corrupt", String(totals.corruptChunks));
    write("to-peers", size(totals.toPeers));
    const statistics = viewer?.statistics();
    write("children", String(statistics?.children.length ?? 0));
    const at = hls.playingDate?.getTime();
    const behind = at === undefined ? hls.latency : (Date.now() - at) / 1000;
    write("latency", behind > 0 ? seconds(behind) : "–");
    write("buffer", seconds(this.ahead()));
    write("stalls", String(this.stalls));
    this.place(viewer?.peer ?? "", placeOf(viewer?.peer ?? "", statistics, nodes));
  }

  private place(me: string, { words, steps }: ReturnType<typeof placeOf>): void {
    write("place-words", words);
    get("place").title = me;
    const rows = steps.map(({ text, kind }) => {
      const row = document.createElement("li");
      row.className = kind;
      row.textContent = text;
      return row;
    });
    get("place").replaceChildren(...rows);
  }

  private ahead(): number {
    const { buffered, currentTime } = this.video;
    for (let index = 0; index < buffered.length; index++)
      if (buffered.start(index) <= currentTime + 0.1 && currentTime < buffered.end(index))
        return buffered.end(index) - currentTime;
    return 0;
  }
}

/** Writes what has changed, so that screen readers repeat nothing. */
function write(id: string, text: string): void {
  const at = get(id);
  if (at.textContent !== text) at.textContent = text;
}
