// Charts of what a channel did since the page was opened, at most the last quarter of an hour.
import uPlot from "uplot";

const MOST = 3600;

/** One chart: the time, and a line for each name. */
export class Chart {
  readonly #plot: uPlot;
  readonly #data: (number | null)[][];

  constructor(parent: HTMLElement, title: string, lines: [name: string, colour: string, dash?: number[]][], unit: (value: number) => string) {
    const holder = parent.appendChild(document.createElement("div"));
    holder.appendChild(document.createElement("h2")).textContent = title;
    const text = () => getComputedStyle(document.body).getPropertyValue("--faint");
    const grid = { stroke: () => getComputedStyle(document.body).getPropertyValue("--line"), width: 1 };
    this.#data = [[], ...lines.map(() => [])];
    this.#plot = new uPlot({
      width: Math.max(200, holder.clientWidth),
      height: 120,
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1e-9, high ?? 1) * 1.1] } },
      axes: [{ stroke: text, grid }, { stroke: text, grid, size: 64, values: (_, values) => values.map(unit) }],
      series: [{}, ...lines.map(([label, stroke, dash]): uPlot.Series => ({
        label, stroke, width: 2, points: { show: false },
        ...(dash ? { dash } : {}), value: (_: uPlot, value: number | null) => (value === null ? "–" : unit(value)),
      }))],
    }, this.#data as uPlot.AlignedData, holder);
    new ResizeObserver(() => this.#plot.setSize({ width: Math.max(200, holder.clientWidth), height: 120 })).observe(parent);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  add(seconds: number, values: number[]): void {
    [seconds, ...values].forEach((value, line) => {
      const kept = this.#data[line];
      kept?.push(Number.isFinite(value) ? value : null);
      if (kept && kept.length > MOST) kept.shift();
    });
    this.#plot.setData(this.#data as uPlot.AlignedData);
  }

  clear(): void {
    for (const line of this.#data) line.length = 0;
    this.#plot.setData(this.#data as uPlot.AlignedData);
  }
}
