// One cell in a dialog: its picture and figures, and its way as a film strip of states and estimates.
import { call, pictures, viewUrl } from "./api.js";
import { h, replace } from "./dom.js";
import { writeExact } from "./exact.js";
import { withValues } from "./lab-cells.js";
import { language, t } from "./strings.js";
import { told } from "./shell.js";

/** @typedef {import("./lab-cells.js").Cell} Cell */
const LOOK_MS = 700;
const ENDED = ["completed", "failed", "cancelled"];

/** A figure of a cell as people read it. @param {number} value */
export const figure = (value) => new Intl.NumberFormat(language, { maximumSignificantDigits: 3 }).format(value);

/** @param {Cell} cell */
export const cellName = ({ row, guidance, seed, cache }) =>
  [t("lab.cell", { sampler: row.sampler, schedule: row.schedule, steps: row.steps, guidance, seed }), cache?.name].filter(Boolean).join(", ");

/** Sends `shut` with its cell when it closes. */
export class Film extends EventTarget {
  /** @param {import("./lab-cells.js").Cells} cells */
  constructor(cells) {
    super();
    this.cells = cells;
    /** @type {Cell | null} */
    this.cell = null;
    this.title = h("h2");
    this.body = h("div", { class: "panel" });
    const shut = h("button", { type: "button", class: "quiet shut", "aria-label": t("close"), text: "×", on: { click: () => this.element.close() } });
    this.element = h("dialog", { class: "sheet", "aria-label": t("lab.way") }, h("div", { class: "row spread" }, this.title, shut), this.body);
    this.element.addEventListener("close", () => {
      const { cell } = this;
      this.cell = null;
      this.dispatchEvent(new CustomEvent("shut", { detail: cell }));
    });
    this.element.addEventListener("click", (event) => { if (event.target === this.element) this.element.close(); });
  }

  /** @param {Cell} cell @param {import("./lab-cells.js").Plan} plan */
  async open(cell, plan) {
    this.cell = cell;
    this.title.textContent = cellName(cell);
    const strip = h("div", { class: "panel" }, h("p", { class: "muted", role: "status", text: t("lab.filming") }));
    replace(this.body, this.facts(cell), strip);
    if (!this.element.open) this.element.showModal();
    try {
      if (cell.row.problem) replace(strip);
      else if (!plan.film) replace(strip, h("p", { class: "muted", text: t("lab.noFilm") }));
      else await this.roll(cell, withValues(plan, plan.film, cell.row, cell.guidance, cell.seed, cell.cache), plan.sampler, strip);
    } catch (error) {
      replace(strip, h("p", { class: "error", text: told(error) }));
    }
  }

  /** @param {Cell} cell */
  facts(cell) {
    const rows = [["lab.evaluations", figure(cell.made)], ["lab.distance", cell.distance === null ? "" : figure(cell.distance)],
      ["lab.drift", cell.drift === null ? "" : figure(cell.drift)], ["lab.driftEstimate", cell.estimate === null ? "" : figure(cell.estimate)],
      ["lab.seconds", cell.seconds === null ? "" : figure(cell.seconds)]];
    return h("div", { class: "details brief" },
      h("div", { class: "shots" }, cell.picture && h("img", { src: viewUrl(cell.picture), alt: cellName(cell) })),
      h("div", { class: "facts" }, cell.problem && h("p", { class: "error", text: cell.problem }),
        h("table", { class: "values" }, h("tbody", null, rows.map(([name, value]) => value && h("tr", null, h("th", { scope: "row", text: t(name) }), h("td", { text: value }))))),
        h("div", { class: "row wrap" }, cell.status !== "none" && [
          h("a", { class: "button quiet", href: `/gallery#job=${cell.jobId}`, text: t("inGallery") }),
          h("a", { class: "button quiet", href: `/run#job=${cell.jobId}`, text: t("change") })])));
  }

  /** The way's job, found or made, then its pictures. @param {Cell} cell @param {import("./api.js").Prompt} prompt @param {string} sampler @param {HTMLElement} strip */
  async roll(cell, prompt, sampler, strip) {
    const { cells } = this;
    const jobId = cells.idOf(writeExact(prompt));
    const known = (await cells.list()).find(({ id }) => id === jobId);
    const isLost = ["failed", "cancelled"].includes(known?.status ?? "");
    if (isLost) await call("/history", { body: { delete: [jobId] } });
    if (!known || isLost) await cells.submit(jobId, prompt, true);
    for (;;) {
      const job = await cells.detail(jobId);
      if (this.cell !== cell) return;
      if (job?.status === "completed") return this.show(job, sampler, strip);
      if (job && ENDED.includes(job.status)) throw new Error(t("failed", { reason: String(job.execution_error?.exception_message ?? job.status) }));
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }

  /** @param {any} job @param {string} sampler @param {HTMLElement} strip */
  show(job, sampler, strip) {
    const { step, sigma } = job.outputs[sampler];
    const rows = ["state", "denoised"].map((name) => {
      const files = pictures({ one: job.outputs[`lab_${name}`] });
      return h("figure", null, h("figcaption", { text: t(`lab.${name}`) }),
        h("ol", { class: "film", tabindex: "0", "aria-label": t(`lab.${name}`) }, files.map((file, place) => h("li", null,
          h("img", { src: viewUrl(file), alt: `${t(`lab.${name}`)}, ${t("lab.frame", { step: step[place], sigma: figure(sigma[place]) })}` }),
          h("span", { class: "muted", text: t("lab.frame", { step: step[place], sigma: figure(sigma[place]) }) })))));
    });
    replace(strip, rows);
  }
}
