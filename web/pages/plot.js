// Line plots as SVG: a colour and marker per first name, a kind of line per second, both scales linear or logarithmic.
import { h, replace } from "./dom.js";
import { language } from "./strings.js";

/** @typedef {{ name: string, colour: number, dash: number, points: [number, number][] }} Line */
/** @typedef {{ title: string, x: string, y: string, isLog: boolean }} Axes */

// contrast of at least 3 to 1 on white and on the dark sheet
const COLOURS = ["#3b82c4", "#d0662b", "#3f9a4f", "#c85082", "#8d6cc9", "#a07a1e", "#2f9595", "#d0524f", "#7d8590", "#5b7fdb"];
const DASHES = ["", "7 4", "2 4", "9 3 2 3"];
const MARKERS = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-3.5-3.5h7v7h-7z", "M0-5L5 0L0 5L-5 0z", "M0-5L5 4H-5z", "M0 5L5-4H-5z"];
const EDGE = { left: 58, right: 12, top: 12, bottom: 44 };
const HEIGHT = 300;
const LEAST_WIDTH = 280;

/**
 * An SVG element.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Element | string)} children
 */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http" + "://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** A number as short as a tick can have it. @param {number} value */
function written(value) {
  const isPlain = value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 10000);
  const form = isPlain ? { maximumSignificantDigits: 3 } : { notation: /** @type {const} */ ("scientific"), maximumSignificantDigits: 2 };
  return new Intl.NumberFormat(language, form).format(value);
}

/** One axis: what becomes of a value, and where ticks stand. @param {number[]} values @param {boolean} isLog @param {number} from @param {number} to @param {number} base */
function scale(values, isLog, from, to, base) {
  const low = Math.min(...values), high = Math.max(...values);
  const map = isLog ? Math.log : (/** @type {number} */ value) => value;
  const pad = isLog ? Math.log(1.15) : (high - low || 1) * 0.03;
  const first = map(low) - pad, last = map(high) + pad;
  const at = (/** @type {number} */ value) => from + ((map(value) - first) / (last - first)) * (to - from);
  const ticks = isLog ? powers(low, high, base) : evenly(low, high);
  return { at, ticks: ticks.length || low === high ? [...ticks, ...(ticks.length ? [] : [Number(low.toPrecision(2))])] : evenly(low, high) };
}

/** Powers of a base round a span; with few of them their 2 and 5 as well. @param {number} low @param {number} high @param {number} base */
function powers(low, high, base) {
  const first = Math.floor(Math.log(low) / Math.log(base)), last = Math.ceil(Math.log(high) / Math.log(base));
  const between = base === 10 && last - first < 3 ? [1, 2, 5] : [1];
  const every = Math.ceil((last - first + 1) / 8);
  const found = [];
  for (let power = first; power <= last; power += every) found.push(...between.map((digit) => digit * base ** power));
  return found.filter((value) => value >= low * 0.9 && value <= high * 1.1);
}

/** @param {number} low @param {number} high */
function evenly(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

/** A plot that is drawn anew when its data or its width change. */
export class Plot {
  /** @param {Axes} axes @param {string} empty what stands there without data */
  constructor(axes, empty) {
    this.axes = axes;
    this.empty = empty;
    /** @type {Line[]} */
    this.lines = [];
    this.place = h("div", { class: "plot" });
    this.legend = h("ul", { class: "legend" });
    this.element = h("figure", null, h("figcaption", { text: axes.title }), this.place, this.legend);
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.lines = lines;
    replace(this.legend, lines.map((line) => h("li", null, swatch(line), line.name)));
    this.draw();
  }

  draw() {
    const points = this.usable().flatMap(({ points: each }) => each);
    if (!points.length) replace(this.place, h("p", { class: "muted", text: this.empty }));
    else replace(this.place, this.drawn(Math.max(LEAST_WIDTH, this.place.clientWidth), HEIGHT));
  }

  /** Lines without what a logarithm cannot show. */
  usable() {
    const { isLog } = this.axes;
    return this.lines.map((line) => ({ ...line, points: line.points.filter(([x, y]) => !isLog || (x > 0 && y > 0)) }));
  }

  /** The plot as an SVG of this size. @param {number} width @param {number} height */
  drawn(width, height) {
    const { axes } = this;
    const lines = this.usable();
    const points = lines.flatMap(({ points: each }) => each);
    const x = scale(points.map(([value]) => value), axes.isLog, EDGE.left, width - EDGE.right, 2);
    const y = scale(points.map(([, value]) => value), axes.isLog, height - EDGE.bottom, EDGE.top, 10);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": axes.title, color: "currentColor", "font-size": 12, "font-family": "system-ui, sans-serif" });
    const label = { fill: "currentColor", "text-anchor": "middle" };
    const rule = { stroke: "currentColor", "stroke-opacity": 0.16 };
    for (const value of x.ticks) {
      root.append(svg("path", { d: `M${x.at(value)} ${EDGE.top}V${height - EDGE.bottom}`, ...rule }),
        svg("text", { x: x.at(value), y: height - EDGE.bottom + 17, ...label }, written(value)));
    }
    for (const value of y.ticks) {
      root.append(svg("path", { d: `M${EDGE.left} ${y.at(value)}H${width - EDGE.right}`, ...rule }),
        svg("text", { x: EDGE.left - 7, y: y.at(value) + 4, fill: "currentColor", "text-anchor": "end" }, written(value)));
    }
    root.append(svg("text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 7, ...label }, axes.x),
      svg("text", { transform: `translate(13 ${(EDGE.top + height - EDGE.bottom) / 2}) rotate(-90)`, ...label }, axes.y),
      ...lines.map((line) => drawnLine(line, x.at, y.at)));
    return root;
  }
}

/** @param {Line} line */
const look = ({ colour, dash }) => ({ stroke: COLOURS[colour % COLOURS.length], "stroke-dasharray": DASHES[dash % DASHES.length], fill: "none", "stroke-width": 2 });

/** @param {Line} line @param {(value: number) => number} x @param {(value: number) => number} y */
function drawnLine(line, x, y) {
  const way = line.points.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L");
  const colour = COLOURS[line.colour % COLOURS.length];
  const shape = MARKERS[line.colour % MARKERS.length];
  const marks = line.points.map(([a, b]) => svg("path", { d: shape, fill: colour, transform: `translate(${x(a).toFixed(1)} ${y(b).toFixed(1)})` },
    svg("title", {}, `${line.name}: ${written(a)}, ${written(b)}`)));
  return svg("g", {}, ...(way ? [svg("path", { d: `M${way}`, ...look(line) })] : []), ...marks);
}

/** @param {Line} line */
function swatch(line) {
  return svg("svg", { width: 34, height: 12, "aria-hidden": "true" }, svg("path", { d: "M1 6H33", ...look(line) }),
    svg("path", { d: MARKERS[line.colour % MARKERS.length], fill: COLOURS[line.colour % COLOURS.length], transform: "translate(17 6)" }));
}

/**
 * A drawn plot as a picture that a canvas takes, dark on white.
 * @param {Element} root
 * @returns {Promise<HTMLImageElement>}
 */
export async function pictureOf(root) {
  root.setAttribute("color", "#1c1e21");
  const text = new XMLSerializer().serializeToString(root);
  const image = h("img", { src: URL.createObjectURL(new Blob([text], { type: "image/svg+xml" })), alt: "" });
  await image.decode();
  URL.revokeObjectURL(image.src);
  return image;
}
