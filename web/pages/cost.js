// What a run will cost, said before it runs: evaluations of the model, and seconds by the last runs like it.
import { call } from "./api.js";
import { h, later } from "./dom.js";
import { duration } from "./shell.js";
import { language, t } from "./strings.js";

const PAUSE_MS = 500;

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
    const isSound = form.fields.every(({ field }) => field.problem() === "") && Object.keys(form.inspected.unknown).length === 0;
    const found = isSound ? await call("/estimate", { body: { workflow: form.prompt() } }).catch(() => null) : null;
    if (this.asked === text) this.element.textContent = found ? told(found) : "";
  }
}

/** @param {{ evaluations: number | null, seconds: number | null, runs: number }} found */
function told({ evaluations, seconds, runs }) {
  const count = evaluations === null ? "" : t(evaluations === 1 ? "cost.one" : "cost.evaluations", { count: new Intl.NumberFormat(language).format(evaluations) });
  const time = seconds === null ? evaluations === null ? "" : t("cost.unknown")
    : t(runs === 1 ? "cost.byOne" : "cost.byRuns", { time: duration(seconds * 1000), runs });
  return [count, time].filter(Boolean).join(" · ");
}
