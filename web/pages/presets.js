// Settings of a workflow's form, kept by name: with the server, so that they are there in every browser of one's own.
import { call } from "./api.js";
import { h, replace } from "./dom.js";
import { say, told } from "./shell.js";
import { t } from "./strings.js";

const PLACE = "/settings/sigmagraph.presets";
const MOST = 50; // of one workflow
/** @typedef {Record<string, [string, string][]>} Named  by name: `NODE.INPUT` and its value, as in the URL */

/** The row with the presets of one workflow. */
export class Presets {
  /** @param {() => [string, string][]} read @param {(values: [string, string][]) => void} apply */
  constructor(read, apply) {
    this.read = read;
    this.workflow = "";
    /** @type {Record<string, Named>} */
    this.all = {};
    this.picker = h("select", { "aria-label": t("presets"), on: { change: () => {
      const values = this.named()[this.picker.value];
      if (values) apply(values);
      this.forget.hidden = !values;
    } } });
    this.forget = h("button", { type: "button", class: "quiet", text: "×", title: t("forgetPreset"),
      "aria-label": t("forgetPreset"), on: { click: () => this.remove() } });
    this.name = h("input", { type: "text", maxlength: 60, dir: "auto", placeholder: t("presetName"), "aria-label": t("presetName") });
    this.name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.keep();
    });
    this.note = h("p", { class: "error", role: "alert" });
    const keep = h("button", { type: "button", class: "quiet", text: t("keepPreset"), on: { click: () => this.keep() } });
    this.element = h("details", { class: "more presets" }, h("summary", { text: t("presets") }),
      h("div", { class: "row wrap" }, this.picker, this.forget, this.name, keep), this.note);
  }

  /** @returns {Named} */
  named() {
    return this.all[this.workflow] ?? {};
  }

  /** Show those of a workflow, named as in the URL. @param {string} workflow */
  async show(workflow) {
    this.workflow = workflow;
    const kept = await call(PLACE).catch(() => null);
    this.all = kept && typeof kept === "object" ? kept : {};
    this.list("");
  }

  /** @param {string} chosen */
  list(chosen) {
    const names = Object.keys(this.named()).sort();
    replace(this.picker, h("option", { value: "", text: t("choosePreset") }), names.map((name) => h("option", { value: name, text: name })));
    this.picker.value = chosen;
    this.picker.hidden = names.length === 0;
    this.forget.hidden = !chosen;
  }

  async keep() {
    const name = this.name.value.trim() || this.picker.value;
    if (!name) {
      this.name.focus();
      return;
    }
    if (!(await this.store((named) => ({ ...named, [name]: this.read() }), name))) return;
    this.name.value = "";
    say(t("presetKept", { name }));
  }

  async remove() {
    const gone = this.picker.value;
    await this.store((named) => Object.fromEntries(Object.entries(named).filter(([name]) => name !== gone)), "");
  }

  /** Change what the server has now, which another tab may have changed; whether it took it. @param {(named: Named) => Named} change @param {string} chosen */
  async store(change, chosen) {
    try {
      const kept = (await call(PLACE)) ?? {};
      const before = kept[this.workflow] ?? {}, after = change(before);
      const count = Object.keys(after).length;
      if (count > MOST && count > Object.keys(before).length) throw new Error(t("tooManyPresets", { most: MOST }));
      const all = Object.fromEntries(Object.entries({ ...kept, [this.workflow]: after }).filter(([, each]) => Object.keys(each).length));
      await call(PLACE, { body: all });
      this.all = all;
      this.list(chosen);
      this.note.textContent = "";
      return true;
    } catch (error) {
      this.note.textContent = told(error);
      return false;
    }
  }
}
