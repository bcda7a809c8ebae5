// Draws a tree on a canvas; zoom, pan, hover and the keyboard. Draws only when something changed.
import { Kind, type Picture } from "./layout.js";

interface Look { label: string; light: string; dark: string; shape: "square" | "diamond" | "disc" | "ring" | "triangle" }

/** By shape as well as by colour; the colours are Okabe's and Ito's, which the colour-blind can tell apart. */
export const LOOKS: Record<Kind, Look> = {
  [Kind.Root]: { label: "root: fed by the CDN", light: "#d55e00", dark: "#e69f00", shape: "square" },
  [Kind.Relay]: { label: "relay", light: "#8a5a83", dark: "#cc79a7", shape: "diamond" },
  [Kind.Contributor]: { label: "contributor", light: "#0072b2", dark: "#56b4e9", shape: "disc" },
  [Kind.Consumer]: { label: "consumer", light: "#00785a", dark: "#009e73", shape: "ring" },
  [Kind.Trouble]: { label: "repairing, or without a session", light: "#000000", dark: "#f0e442", shape: "triangle" },
};

const KINDS = [Kind.Consumer, Kind.Contributor, Kind.Relay, Kind.Root, Kind.Trouble];

export class TreeView {
  #picture: Picture | undefined;
  #scale = 1;
  #x = 0;
  #y = 0;
  #fitted = true;
  #scheduled = false;
  #found = -1;
  #drag: { x: number; y: number } | undefined;
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  showStandby = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly hover: (peer: string | undefined, x: number, y: number) => void,
  ) {
    new ResizeObserver(() => (this.#fitted ? this.fit() : this.redraw())).observe(canvas);
    this.#dark.addEventListener("change", () => this.redraw());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#grab(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", () => (this.#drag = undefined));
    canvas.addEventListener("pointerleave", () => this.hover(undefined, 0, 0));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show(picture: Picture): void {
    const found = this.#picture?.ids[this.#found];
    this.#picture = picture;
    this.#found = found === undefined ? -1 : picture.ids.indexOf(found);
    if (this.#fitted) this.fit();
    else this.redraw();
  }

  /** Shows all of the tree. */
  fit(): void {
    const radius = (this.#picture?.radius ?? 100) + 30;
    this.#scale = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / (2 * radius);
    this.#x = this.canvas.clientWidth / 2;
    this.#y = this.canvas.clientHeight / 2;
    this.#fitted = true;
    this.redraw();
  }

  /** Goes to the first peer whose id begins so; tells whether there is one. */
  find(text: string): boolean {
    const picture = this.#picture;
    this.#found = text === "" || !picture ? -1 : picture.ids.findIndex((id) => id.startsWith(text));
    if (picture && this.#found >= 0) {
      this.#fitted = false;
      this.#scale = Math.max(this.#scale, 1);
      this.#x = this.canvas.clientWidth / 2 - (picture.x[this.#found] ?? 0) * this.#scale;
      this.#y = this.canvas.clientHeight / 2 - (picture.y[this.#found] ?? 0) * this.#scale;
      this.hover(picture.ids[this.#found], this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
    }
    this.redraw();
    return this.#found >= 0;
  }

  redraw(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => { this.#scheduled = false; this.#draw(); });
  }

  #draw(): void {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    if (!context) return;
    const density = devicePixelRatio;
    const [width, height] = [Math.round(canvas.clientWidth * density), Math.round(canvas.clientHeight * density)];
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(density * this.#scale, 0, 0, density * this.#scale, density * this.#x, density * this.#y);
    const dark = this.#dark.matches;
    if (!this.#picture) return;
    const size = Math.min(9, Math.max(3.2, 2 / this.#scale));
    this.#edges(context, this.#picture, this.#picture.parent, dark ? "#56616f" : "#aab2bf", true);
    if (this.showStandby) {
      context.setLineDash([4 / this.#scale, 4 / this.#scale]);
      this.#edges(context, this.#picture, this.#picture.standby, dark ? "#cc79a7" : "#8a5a83", false);
      context.setLineDash([]);
    }
    for (const kind of KINDS) this.#peers(context, this.#picture, kind, size, dark);
    this.#cdn(context, size, dark);
    this.#mark(context, this.#picture, size, dark);
  }

  #edges(context: CanvasRenderingContext2D, picture: Picture, to: Int32Array, colour: string, cdn: boolean): void {
    const { x, y } = picture;
    context.strokeStyle = colour;
    context.lineWidth = 1 / this.#scale;
    context.beginPath();
    for (let index = 0; index < to.length; index++) {
      const above = to[index] ?? -1;
      if (above < 0 && !(cdn && picture.kind[index] === Kind.Root)) continue;
      context.moveTo(x[index] ?? 0, y[index] ?? 0);
      context.lineTo(above < 0 ? 0 : (x[above] ?? 0), above < 0 ? 0 : (y[above] ?? 0));
    }
    context.stroke();
  }

  #peers(context: CanvasRenderingContext2D, picture: Picture, kind: Kind, size: number, dark: boolean): void {
    const look = LOOKS[kind];
    context.beginPath();
    for (let index = 0; index < picture.kind.length; index++) {
      if (picture.kind[index] === kind) trace(context, look.shape, picture.x[index] ?? 0, picture.y[index] ?? 0, size);
    }
    const colour = dark ? look.dark : look.light;
    context.fillStyle = look.shape === "ring" ? (dark ? "#1a1f26" : "#f5f6f8") : colour;
    context.fill();
    context.strokeStyle = colour;
    context.lineWidth = size / 3;
    if (look.shape === "ring") context.stroke();
  }

  #cdn(context: CanvasRenderingContext2D, size: number, dark: boolean): void {
    context.fillStyle = dark ? "#e8eaee" : "#16181d";
    context.font = `600 ${Math.max(11 / this.#scale, size)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText("CDN", 0, 0);
  }

  #mark(context: CanvasRenderingContext2D, picture: Picture, size: number, dark: boolean): void {
    if (this.#found < 0) return;
    context.strokeStyle = dark ? "#ffffff" : "#000000";
    context.lineWidth = 2 / this.#scale;
    context.beginPath();
    context.arc(picture.x[this.#found] ?? 0, picture.y[this.#found] ?? 0, size + 6 / this.#scale, 0, 2 * Math.PI);
    context.stroke();
  }

  #zoom(by: number, x: number, y: number): void {
    const scale = Math.min(20, Math.max(0.02, this.#scale * by));
    this.#x = x - ((x - this.#x) * scale) / this.#scale;
    this.#y = y - ((y - this.#y) * scale) / this.#scale;
    this.#scale = scale;
    this.#fitted = false;
    this.redraw();
  }

  #wheel(event: WheelEvent): void {
    event.preventDefault();
    this.#zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }

  #grab(event: PointerEvent): void {
    this.canvas.setPointerCapture(event.pointerId);
    this.#drag = { x: event.offsetX, y: event.offsetY };
  }

  #move(event: PointerEvent): void {
    if (!this.#drag) {
      this.hover(this.#at(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
      return;
    }
    this.#pan(event.offsetX - this.#drag.x, event.offsetY - this.#drag.y);
    this.#drag = { x: event.offsetX, y: event.offsetY };
  }

  #pan(x: number, y: number): void {
    this.#x += x;
    this.#y += y;
    this.#fitted = false;
    this.redraw();
  }

  #at(x: number, y: number): string | undefined {
    const picture = this.#picture;
    if (!picture) return undefined;
    const [px, py] = [(x - this.#x) / this.#scale, (y - this.#y) / this.#scale];
    let [nearest, best] = [-1, (12 / this.#scale) ** 2];
    for (let index = 0; index < picture.x.length; index++) {
      const distance = ((picture.x[index] ?? 0) - px) ** 2 + ((picture.y[index] ?? 0) - py) ** 2;
      if (distance < best) [nearest, best] = [index, distance];
    }
    return picture.ids[nearest];
  }

  #key(event: KeyboardEvent): void {
    const [x, y] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const keys: Record<string, () => void> = {
      ArrowLeft: () => this.#pan(60, 0),
      ArrowRight: () => this.#pan(-60, 0),
      ArrowUp: () => this.#pan(0, 60),
      ArrowDown: () => this.#pan(0, -60),
      "+": () => this.#zoom(1.3, x, y),
      "=": () => this.#zoom(1.3, x, y),
      "-": () => this.#zoom(1 / 1.3, x, y),
      "0": () => this.fit(),
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

function trace(path: CanvasRenderingContext2D, shape: Look["shape"], x: number, y: number, size: number): void {
  if (shape === "square") return path.rect(x - size, y - size, 2 * size, 2 * size);
  if (shape === "disc" || shape === "ring") {
    path.moveTo(x + size, y);
    return path.arc(x, y, size, 0, 2 * Math.PI);
  }
  const corners = shape === "diamond" ? [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]] : [[0, -1.3], [1.2, 0.9], [-1.2, 0.9]];
  corners.forEach(([dx = 0, dy = 0], index) => {
    if (index === 0) path.moveTo(x + dx * size, y + dy * size);
    else path.lineTo(x + dx * size, y + dy * size);
  });
  path.closePath();
}
