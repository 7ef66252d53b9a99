// Painting a mask on a picture: with a brush, or by the numbers of a rectangle. What is painted becomes transparent.
import { viewUrl } from "./api.js";
import { pixelsOf } from "./compare.js";
import { freshId, h } from "./dom.js";
import { say, told } from "./shell.js";
import { t } from "./strings.js";

const MOST_UNDONE = 24;
const PAINT = [255, 64, 96];

/** A dialog for one picture of the input folder. Sends `made` with the name of the file that has the mask. */
export class MaskDialog extends EventTarget {
  /** @param {string} filename with its subfolder */
  constructor(filename) {
    super();
    this.filename = filename;
    this.canvas = h("canvas", { class: "over", role: "img", "aria-label": t("mask") });
    this.picture = h("img", { alt: filename, src: `${viewUrl({ filename, type: "input" })}&channel=rgb` });
    this.brush = this.number("brushSize", 24, 1, 512);
    this.brush.type = "range";
    this.erases = h("input", { type: "checkbox", id: freshId() });
    this.note = h("p", { class: "error", role: "alert" });
    this.back = this.button("undo", () => this.undo());
    this.back.disabled = true;
    this.keep = this.button("keepMask", () => this.send());
    this.keep.className = "primary";
    this.box = [this.number("left", 0, 0), this.number("top", 0, 0), this.number("field.width", 64, 1), this.number("field.height", 64, 1)];
    this.fill = this.button("fillRectangle", () => this.fillBox());
    const sheet = h("div", { class: "two paper" }, this.picture, this.canvas);
    this.element = h("dialog", { class: "sheet painting", "aria-label": t("paintMask") },
      h("div", { class: "row spread" }, h("h2", { text: t("paintMask") }), this.button("close", () => this.element.close())),
      h("p", { class: "muted", text: t("maskHint") }), sheet,
      h("div", { class: "row wrap" }, labelled(this.brush, "brushSize"),
        h("label", { class: "row", for: this.erases.id }, this.erases, t("erase")), this.back, this.button("clearMask", () => this.clear())),
      h("fieldset", null, h("legend", { text: t("rectangle") }),
        h("div", { class: "grid box" }, ["left", "top", "field.width", "field.height"].map((name, at) => labelled(this.box[at], name)),
          this.fill)),
      this.note, h("div", { class: "go" }, this.keep));
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("no canvas");
    this.context = context;
    /** @type {ImageData[]} */
    this.past = [];
    this.listen();
  }

  /** @param {string} name @param {() => void} action */
  button(name, action) {
    return h("button", { type: "button", class: "quiet", text: t(name), on: { click: action } });
  }

  /** @param {string} name @param {number} value @param {number} min @param {number} [max] */
  number(name, value, min, max) {
    return h("input", { type: "number", id: freshId(), name, min, max, value });
  }

  listen() {
    /** @type {[number, number] | null} */
    let last = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      if (this.keep.disabled) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.remember();
      last = this.place(event);
      this.stroke(last, last);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      for (const each of event.getCoalescedEvents?.() ?? [event]) {
        const next = this.place(each);
        this.stroke(last, next);
        last = next;
      }
    });
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, () => { last = null; });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey) && !this.back.disabled) this.undo();
    });
    this.element.addEventListener("close", () => this.element.remove());
  }

  /** Show it; a mask that the picture has is there to go on with. */
  async open() {
    document.body.append(this.element);
    this.element.showModal();
    this.keep.disabled = this.fill.disabled = true;
    try {
      const pixels = await pixelsOf(viewUrl({ filename: this.filename, type: "input" }));
      this.canvas.width = pixels.width;
      this.canvas.height = pixels.height;
      this.brush.max = String(Math.max(pixels.width, pixels.height) >> 1);
      this.brush.value = String(Math.max(1, Math.max(pixels.width, pixels.height) >> 4));
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([...PAINT, 255 - pixels.data[at + 3]], at);
      this.context.putImageData(pixels, 0, 0);
      this.keep.disabled = this.fill.disabled = false;
    } catch (error) {
      this.note.textContent = told(error);
    }
  }

  /** Where on the picture. @param {PointerEvent} event @returns {[number, number]} */
  place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(event.clientX - left) * this.canvas.width / width, (event.clientY - top) * this.canvas.height / height];
  }

  /** @param {[number, number]} from @param {[number, number]} to */
  stroke(from, to) {
    this.context.globalCompositeOperation = this.erases.checked ? "destination-out" : "source-over";
    this.context.strokeStyle = `rgb(${PAINT.join(" ")})`;
    this.context.lineWidth = Number(this.brush.value);
    this.context.lineCap = "round";
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
  }

  fillBox() {
    const [x, y, width, height] = this.box.map((input) => Math.round(Number(input.value)));
    this.remember();
    this.context.globalCompositeOperation = this.erases.checked ? "destination-out" : "source-over";
    this.context.fillStyle = `rgb(${PAINT.join(" ")})`;
    this.context.fillRect(x, y, width, height);
    say(t("rectangleDone", { x, y, width, height }));
  }

  clear() {
    this.remember();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    say(t("maskCleared"));
  }

  /** Keep what is there, for undo. */
  remember() {
    this.past.push(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.past.length > MOST_UNDONE) this.past.shift();
    this.back.disabled = false;
  }

  undo() {
    const before = this.past.pop();
    if (before) this.context.putImageData(before, 0, 0);
    this.back.disabled = this.past.length === 0;
  }

  /** The picture with this mask as its alpha, as a file of its own. */
  async send() {
    this.keep.disabled = true;
    try {
      const name = `${this.filename.replace(/^.*\//, "").replace(/(-mask)?\.[^.]*$/, "")}-mask.png`;
      const form = new FormData();
      form.append("image", await this.alpha(), name);
      form.append("original_ref", JSON.stringify({ filename: this.filename, type: "input" }));
      const response = await fetch("/upload/mask", { method: "POST", body: form });
      if (!response.ok) throw new Error((await response.text()) || response.statusText);
      const made = await response.json();
      this.element.close();
      this.dispatchEvent(new CustomEvent("made", { detail: made.subfolder ? `${made.subfolder}/${made.name}` : made.name }));
    } catch (error) {
      this.note.textContent = told(error);
    }
    this.keep.disabled = false;
  }

  /** A picture that is clear where the mask is painted. @returns {Promise<Blob>} */
  alpha() {
    const { width, height } = this.canvas;
    const pixels = this.context.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([0, 0, 0, 255 - pixels.data[at + 3]], at);
    const sheet = new OffscreenCanvas(width, height);
    sheet.getContext("2d")?.putImageData(pixels, 0, 0);
    return sheet.convertToBlob({ type: "image/png" });
  }
}

/** @param {HTMLInputElement} input @param {string} name */
function labelled(input, name) {
  return h("div", { class: "field" }, h("label", { for: input.id, text: t(name) }), input);
}
