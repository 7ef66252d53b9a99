// What a run will cost, said before it runs: evaluations of the model, and seconds by the last runs like it.
import { call } from "./api.js";
import { h, later } from "./dom.js";
import { duration } from "./shell.js";
import { language, t } from "./strings.js";

const PAUSE_MS = 500;
const AGAIN_MS = 4000, MOST_TRIES = 4; // a worker that opens a large model first may not answer in time

/** The line above the button. */
export class Cost {
  constructor() {
    this.element = h("p", { class: "muted cost", role: "status" });
    this.asked = "";
    this.look = later((/** @type {import("./form.js").Form} */ form) => this.show(form), PAUSE_MS);
  }

  /** Ask again where the form says something else than before, or a run has ended. @param {import("./form.js").Form} form @param {boolean} [isNew] */
  ask(form, isNew = false) {
    if (isNew) this.asked = "";
    this.look(form);
  }

  /** @param {import("./form.js").Form} form */
  async show(form) {
    const text = JSON.stringify(form.values());
    if (text === this.asked || document.hidden) return;
    this.asked = text;
    await this.tell(form, text, 1);
  }

  /** @param {import("./form.js").Form} form @param {string} text what the form says @param {number} tries */
  async tell(form, text, tries) {
    const isSound = form.fields.every(({ field }) => field.problem() === "") && Object.keys(form.inspected.unknown).length === 0;
    const found = isSound ? await call("/estimate", { body: { workflow: form.prompt() } }).catch(() => null) : null;
    if (this.asked !== text) return;
    this.element.textContent = found ? told(found) : "";
    const isOpen = Object.values(found?.samplers ?? {}).some((/** @type {any} */ row) => row.problem !== null);
    if (isOpen && tries < MOST_TRIES) window.setTimeout(() => { if (this.asked === text) this.tell(form, text, tries + 1); }, AGAIN_MS);
  }
}

/** @param {{ evaluations: number | null, seconds: number | null, runs: number }} found */
function told({ evaluations, seconds, runs }) {
  const count = evaluations === null ? "" : t(evaluations === 1 ? "cost.one" : "cost.evaluations", { count: new Intl.NumberFormat(language).format(evaluations) });
  const time = seconds === null ? evaluations === null ? "" : t("cost.unknown")
    : t(runs === 1 ? "cost.byOne" : "cost.byRuns", { time: duration(seconds * 1000), runs });
  return [count, time].filter(Boolean).join(" · ");
}
