// Several jobs of the gallery at once: which are chosen, and what is done with all of them.
import { h, replace } from "./dom.js";
import { say, told } from "./shell.js";
import { t } from "./strings.js";

/** @typedef {(ids: string[]) => Promise<void>} Action */

/** While it is on, a press on a tile chooses it. */
export class Selection {
  /** @param {{ compare: Action, download: Action, remove: Action }} actions */
  constructor(actions) {
    /** @type {Map<string, HTMLElement>} */
    this.chosen = new Map();
    this.toggle = h("button", { type: "button", class: "quiet", "aria-pressed": "false", text: t("select"), on: { click: () => this.turn(!this.isOn) } });
    this.count = h("span", { class: "muted", role: "status" });
    this.note = h("span", { class: "row wrap", role: "status" });
    this.compare = this.button("compare", actions.compare);
    this.download = this.button("download", actions.download);
    this.delete = h("button", { type: "button", class: "quiet", text: t("delete"), on: { click: () => this.ask(actions.remove) } });
    this.element = h("div", { class: "row wrap selection", hidden: true }, this.count, this.compare, this.download, this.delete, this.note);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isOn && !document.querySelector("dialog[open]")) this.turn(false);
    });
  }

  get isOn() {
    return !this.element.hidden;
  }

  /** @param {string} name @param {Action} action */
  button(name, action) {
    return h("button", { type: "button", class: "quiet", text: t(name), on: { click: () => this.perform(action) } });
  }

  /** @param {boolean} isOn */
  turn(isOn) {
    this.element.hidden = !isOn;
    this.toggle.setAttribute("aria-pressed", String(isOn));
    for (const element of this.chosen.values()) element.removeAttribute("aria-pressed");
    this.chosen.clear();
    this.changed();
  }

  /** Whether the press was about choosing. @param {string} id @param {HTMLElement} element */
  turned(id, element) {
    if (!this.isOn) return false;
    if (this.chosen.delete(id)) element.removeAttribute("aria-pressed");
    else this.chosen.set(id, element);
    this.mark(id, element);
    this.changed();
    return true;
  }

  /** A tile that was drawn anew shows that it is chosen. @param {string} id @param {HTMLElement} element */
  mark(id, element) {
    if (!this.chosen.has(id)) return;
    this.chosen.set(id, element);
    element.setAttribute("aria-pressed", "true");
  }

  /** A job that is gone is not chosen any more. @param {string} id */
  drop(id) {
    if (this.chosen.delete(id)) this.changed();
  }

  /** @param {Action} action */
  async perform(action) {
    this.tell("");
    try {
      await action([...this.chosen.keys()]);
    } catch (error) {
      this.tell(told(error));
    }
  }

  /** Delete only when it is meant. @param {Action} remove */
  ask(remove) {
    const sure = h("button", { type: "button", class: "danger", text: t("deleteSure"), on: { click: async () => {
      await this.perform(remove);
      if (this.note.textContent === "") this.turn(false);
    } } });
    replace(this.note, h("span", { text: t("deleteAllAsk", { count: this.chosen.size }) }), sure);
    sure.focus();
  }

  /** @param {string} text */
  tell(text) {
    replace(this.note, text);
  }

  changed() {
    const count = this.chosen.size;
    this.count.textContent = t("chosen", { count });
    this.compare.disabled = count !== 2;
    this.download.disabled = this.delete.disabled = count === 0;
    this.tell("");
    if (count) say(t("chosen", { count }));
  }
}
