// Two pictures in one frame: a slider between them, their difference, and how far apart they are.
import { freshId, h } from "./dom.js";
import { language, t } from "./strings.js";

/** @typedef {{ url: string, name: string }} Shown */
const GAINS = [1, 4, 16];

/** Two pictures, one beside the other. */
export class Comparison {
  constructor() {
    const id = freshId();
    this.under = h("img", { alt: "" });
    this.over = h("img", { alt: "", class: "over" });
    this.canvas = h("canvas", { class: "over", role: "img", hidden: true, "aria-label": t("difference") });
    this.frame = h("div", { class: "two", on: { pointermove: this.dragged, pointerdown: this.dragged } }, this.under, this.over, this.canvas);
    this.slider = h("input", { type: "range", min: 0, max: 100, step: 1, id, on: { input: () => this.slide() } });
    this.view = h("select", { "aria-label": t("view"), on: { change: () => this.choose() } },
      h("option", { value: "0", text: t("view.slider") }),
      GAINS.map((gain) => h("option", { value: String(gain), text: t("view.difference", { gain }) })));
    this.figures = h("p", { class: "muted figures", role: "status" });
    this.left = h("span", { dir: "auto" });
    this.right = h("span", { dir: "auto" });
    this.sliding = h("label", { class: "slide", for: id }, this.left, this.slider, this.right);
    this.element = h("div", { class: "compare" }, this.frame, this.sliding, h("div", { class: "row spread" }, this.view, this.figures));
    /** @type {ImageData[]} */
    this.pixels = [];
    this.asked = 0;
  }

  /**
   * Put two pictures in the frame: `before` is seen left of the slider.
   * @param {Shown} before
   * @param {Shown} after
   */
  async show(before, after) {
    const mine = (this.asked += 1);
    for (const [image, shown, label] of /** @type {const} */ ([[this.over, before, this.left], [this.under, after, this.right]])) {
      image.src = shown.url;
      image.alt = shown.name;
      label.textContent = shown.name;
    }
    this.pixels = [];
    this.view.disabled = true;
    this.view.value = "0";
    this.slider.value = "50";
    this.choose();
    this.figures.textContent = "";
    try {
      const pixels = await Promise.all([before.url, after.url].map(pixelsOf));
      if (mine === this.asked) this.measured(pixels);
    } catch {
      if (mine === this.asked) this.figures.textContent = t("cannotCompare");
    }
  }

  /** @param {ImageData[]} pixels */
  measured(pixels) {
    const [one, other] = pixels;
    if (one.width !== other.width || one.height !== other.height) {
      const size = (/** @type {ImageData} */ each) => `${each.width} × ${each.height}`;
      this.figures.textContent = t("otherSizes", { one: size(one), other: size(other) });
      return;
    }
    this.pixels = pixels;
    this.view.disabled = false;
    const rms = rmsOf(one, other);
    const written = (/** @type {number} */ value) => new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value);
    this.figures.textContent = rms === 0 ? t("samePixels")
      : t("apart", { psnr: written(20 * Math.log10(255 / rms)), rms: written(rms) });
  }

  /** Slider or difference, as chosen. */
  choose() {
    const gain = Number(this.view.value);
    const isDifference = gain > 0 && this.pixels.length === 2;
    this.sliding.hidden = isDifference;
    this.over.hidden = isDifference;
    this.canvas.hidden = !isDifference;
    if (isDifference) drawDifference(this.canvas, this.pixels, gain);
    this.slide();
  }

  slide() {
    this.over.style.clipPath = `inset(0 ${100 - Number(this.slider.value)}% 0 0)`;
    this.frame.style.setProperty("--at", `${this.slider.value}%`);
    this.frame.classList.toggle("divided", !this.sliding.hidden);
  }

  /** The line follows a pressed pointer. @type {(event: PointerEvent) => void} */
  dragged = (event) => {
    if (!event.buttons || this.sliding.hidden) return;
    event.preventDefault();
    const { left, width } = this.frame.getBoundingClientRect();
    this.slider.value = String(Math.round(100 * (event.clientX - left) / width));
    this.slide();
  };
}

/** A dialog with a comparison in it. */
export class ComparisonDialog {
  constructor() {
    this.comparison = new Comparison();
    const shut = h("button", { type: "button", class: "quiet shut", "aria-label": t("close"), text: "×", on: { click: () => this.element.close() } });
    this.element = h("dialog", { class: "sheet", "aria-label": t("comparing") },
      h("div", { class: "row spread" }, h("h2", { text: t("comparing") }), shut), this.comparison.element);
    this.element.addEventListener("close", () => this.element.remove());
  }

  /** @param {Shown} before @param {Shown} after */
  open(before, after) {
    if (!this.element.isConnected) document.body.append(this.element);
    if (!this.element.open) this.element.showModal();
    return this.comparison.show(before, after);
  }
}

/**
 * The pixels of a picture of this server, as they are in the file.
 * @param {string} url
 */
export async function pixelsOf(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(response.statusText);
  const bitmap = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  if (!context) throw new Error("no canvas");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, context.canvas.width, context.canvas.height);
}

/**
 * Root mean square difference of red, green and blue, of 255.
 * @param {ImageData} one
 * @param {ImageData} other
 */
export function rmsOf(one, other) {
  let sum = 0;
  for (let at = 0; at < one.data.length; at += 4) {
    for (let colour = at; colour < at + 3; colour += 1) sum += (one.data[colour] - other.data[colour]) ** 2;
  }
  return Math.sqrt(sum / (one.width * one.height * 3));
}

/** @param {HTMLCanvasElement} canvas @param {ImageData[]} pixels @param {number} gain */
function drawDifference(canvas, [one, other], gain) {
  canvas.width = one.width;
  canvas.height = one.height;
  const made = new ImageData(one.width, one.height);
  for (let at = 0; at < made.data.length; at += 1) {
    made.data[at] = at % 4 === 3 ? 255 : gain * Math.abs(one.data[at] - other.data[at]);
  }
  canvas.getContext("2d")?.putImageData(made, 0, 0);
}
