// One job in a dialog: its pictures, what it was asked, and what can be done with it.
import { call, pictures, viewUrl } from "./api.js";
import { h, keepFile, replace } from "./dom.js";
import { writeExact } from "./exact.js";
import { nameOf } from "./fields.js";
import { lineage } from "./lineage.js";
import { promptText } from "./live.js";
import { duration, moment, told } from "./shell.js";
import { NODES, known, t } from "./strings.js";

/** @typedef {import("./api.js").JobDetail} JobDetail */
const REPLAY_S = 120;

/** Sends `gone` with a deleted job's id, `turn` with -1 or 1, `shut` when it closes. */
export class Details extends EventTarget {
  constructor() {
    super();
    /** @type {string | null} */
    this.jobId = null;
    this.body = h("div", { class: "details" });
    const shut = h("button", { type: "button", class: "quiet shut", "aria-label": t("close"), text: "×", on: { click: () => this.element.close() } });
    this.before = this.arrow(-1, "‹", t("newer"));
    this.after = this.arrow(1, "›", t("older"));
    this.element = h("dialog", { class: "sheet", "aria-label": t("details") },
      h("div", { class: "row spread" }, h("div", { class: "row" }, this.before, this.after), shut), this.body);
    this.element.addEventListener("close", () => {
      this.jobId = null;
      this.dispatchEvent(new Event("shut"));
    });
    this.element.addEventListener("click", (event) => { if (event.target === this.element) this.element.close(); });
    this.element.addEventListener("keydown", (event) => {
      if (event.target instanceof HTMLInputElement) return;
      if (event.key === "ArrowLeft") this.turn(-1);
      if (event.key === "ArrowRight") this.turn(1);
    });
  }

  /** @param {number} by @param {string} text @param {string} label */
  arrow(by, text, label) {
    return h("button", { type: "button", class: "quiet", "aria-label": label, title: label, text, on: { click: () => this.turn(by) } });
  }

  /** @param {number} by */
  turn(by) {
    this.dispatchEvent(new CustomEvent("turn", { detail: by }));
  }

  /** @param {string} id */
  async open(id) {
    if (this.jobId === id && this.element.open) return;
    this.jobId = id;
    if (!this.element.open) this.element.showModal();
    try {
      const job = await call(`/jobs/${encodeURIComponent(id)}`);
      if (this.jobId === id) this.show(job);
    } catch (error) {
      replace(this.body, h("p", { class: "error", text: told(error) }));
    }
  }

  /** @param {JobDetail} job */
  show(job) {
    const files = pictures(job.outputs);
    const text = promptText(job.workflow.prompt);
    const alt = t("pictureOf", { text });
    const note = h("p", { class: "status", role: "status" });
    const took = (job.execution_end_time ?? 0) - (job.execution_start_time ?? 0);
    const error = job.execution_error?.exception_message;
    const family = h("div");
    replace(this.body,
      h("div", { class: "shots" }, files.map((file) =>
        h("a", { href: viewUrl(file), target: "_blank", rel: "noopener" }, h("img", { src: viewUrl(file), alt })))),
      h("div", { class: "facts" },
        h("p", { class: "quote", dir: "auto", text: text || t("noText") }),
        h("p", { class: "muted", text: [t(`state.${job.status}`), moment(job.create_time), took > 0 && duration(took)].filter(Boolean).join(" · ") }),
        error && h("p", { class: "notice error", dir: "auto", text: String(error).trim() }),
        this.actions(job, files, note), note, family, parameters(job)));
    lineage(job).then((found) => { if (found && this.jobId === job.id) replace(family, found); }, () => {});
  }

  /** @param {JobDetail} job @param {import("./api.js").FileRecord[]} files @param {HTMLElement} note */
  actions(job, files, note) {
    const button = (/** @type {string} */ name, /** @type {() => any} */ action) =>
      h("button", { type: "button", class: "quiet", text: t(name), on: { click: action } });
    const replay = files.length ? button("replay", async () => {
      replay && (replay.disabled = true);
      note.textContent = t("replaying");
      await this.replay(job, files[0], note);
      replay && (replay.disabled = false);
    }) : null;
    return h("div", { class: "row wrap" },
      h("a", { class: "button primary", href: `/run#job=${encodeURIComponent(job.id)}`, text: t("change") }),
      files.map((file) => h("a", { class: "button quiet", href: viewUrl(file), download: file.filename, text: files.length > 1 ? file.filename : t("download") })),
      replay,
      button("workflowFile", () => saveFile(job)),
      h("a", { class: "button quiet needs-editor", href: `/?sigmagraph-job=${encodeURIComponent(job.id)}`, text: t("openInEditor") }),
      button("delete", () => this.remove(job, note)));
  }

  /** @param {JobDetail} job @param {import("./api.js").FileRecord} image @param {HTMLElement} note */
  async replay(job, image, note) {
    try {
      const { filename, subfolder = "", type = "output" } = image;
      let found = await call("/replay", { body: { image: { filename, subfolder, type }, job_id: job.id, wait_s: REPLAY_S } });
      while (found.verdict === null && found.status) found = await call(found.status);
      if (found.error) throw new Error(found.error);
      const figures = found.verdict === "identical" ? "" : t("psnr", { value: Number(found.psnr ?? 0).toFixed(1) });
      replace(note, t(`verdict.${found.verdict}`), found.psnr === null || found.psnr === undefined ? "" : figures,
        h("ul", null, (found.differences ?? []).map((/** @type {any} */ each) =>
          h("li", { dir: "auto", text: t("differs", { field: each.field, was: writeExact(each.recorded), now: writeExact(each.now) }) }))));
    } catch (error) {
      note.textContent = told(error);
    }
  }

  /** @param {JobDetail} job @param {HTMLElement} note */
  remove(job, note) {
    const sure = h("button", { type: "button", class: "danger", text: t("deleteSure"), on: { click: async () => {
      try {
        await call("/history", { body: { delete: [job.id] } });
        this.element.close();
        this.dispatchEvent(new CustomEvent("gone", { detail: job.id }));
      } catch (error) {
        note.textContent = told(error);
      }
    } } });
    replace(note, t("deleteAsk"), " ", sure);
    sure.focus();
  }
}

/** @param {JobDetail} job */
function saveFile(job) {
  const drawing = job.workflow.extra_data?.extra_pnginfo?.workflow;
  const file = new Blob([writeExact(drawing ?? job.workflow.prompt, 2)], { type: "application/json" });
  keepFile(file, `${job.id.slice(0, 8)}.json`);
}

/** Every value that was set, node by node. @param {JobDetail} job */
function parameters(job) {
  const rows = Object.values(job.workflow.prompt).flatMap((node) => {
    const values = Object.entries(node.inputs ?? {}).filter(([, value]) => !Array.isArray(value) && value !== "");
    if (!values.length) return [];
    const title = node._meta?.title ?? node.class_type;
    return [h("tr", { class: "head" }, h("th", { colspan: "2", scope: "rowgroup", dir: "auto", lang: NODES, text: title })),
      ...values.map(([name, value]) => h("tr", null, h("th", { scope: "row", lang: known(`field.${name}`) ? null : NODES, text: nameOf(name) }), h("td", { dir: "auto", text: typeof value === "object" ? writeExact(value) : String(value) })))];
  });
  return h("table", { class: "values" }, h("caption", { text: t("parameters") }), h("tbody", null, rows));
}
