// One job as it runs: place in the queue, node, step, preview, then its pictures or why there are none.
import { call, pictures, viewUrl } from "./api.js";
import { Comparison } from "./compare.js";
import { h, replace } from "./dom.js";
import { duration, say, told } from "./shell.js";
import { t } from "./strings.js";

/** @typedef {import("./api.js").Prompt} Prompt */

const ENDS = ["completed", "failed", "cancelled"];
const LOOK_MS = 3000;
const LEFT = "sigmagraph.left"; // in the tab's own storage, from the moment it leaves until it is back: a tab made from this one has none

/**
 * The job that ran here when this tab left the page, once.
 * @returns {{ jobId: string, clientId: string } | null}
 */
export function takeUp() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(LEFT) ?? "null");
    sessionStorage.removeItem(LEFT);
    return typeof kept?.jobId === "string" && typeof kept.clientId === "string" ? kept : null;
  } catch {
    return null; // a browser that keeps nothing
  }
}

/** The stage on which jobs appear. Sends `ended` with the job's record. */
export class Stage extends EventTarget {
  /** @param {import("./api.js").Socket} socket */
  constructor(socket) {
    super();
    this.socket = socket;
    this.picture = h("img", { alt: "", hidden: true });
    this.empty = h("p", { class: "muted", text: t("stageEmpty") });
    this.status = h("p", { class: "status" });
    this.bar = h("progress", { max: 1, hidden: true, "aria-label": t("progress") });
    this.stop = h("button", { type: "button", class: "quiet", hidden: true, text: t("cancel"), on: { click: () => this.cancel() } });
    this.links = h("div", { class: "row" });
    this.frame = h("div", { class: "frame" }, this.empty, this.picture);
    this.comparison = new Comparison();
    this.comparison.element.hidden = true;
    this.beside = h("button", { type: "button", class: "quiet", "aria-pressed": "false", text: t("compareLast"), on: { click: () => this.compare(!this.frame.hidden) } });
    /** @type {import("./compare.js").Shown[]} the newest results, the last one first */
    this.results = [];
    this.more = h("div", { class: "strip" });
    this.element = h("section", { class: "stage", "aria-label": t("result") }, this.frame, this.comparison.element, this.bar,
      h("div", { class: "row spread" }, this.status, this.stop), this.links, this.more);
    /** @type {string | null} */
    this.jobId = null;
    /** @type {number | null} the step at which this page began to count */
    this.first = null;
    /** @type {Prompt} */
    this.prompt = {};
    socket.addEventListener("message", (event) => this.heard(/** @type {CustomEvent} */ (event).detail));
    socket.addEventListener("preview", (event) => this.saw(/** @type {CustomEvent} */ (event).detail));
    window.setInterval(() => { if (this.jobId) this.look(); }, LOOK_MS);
    window.addEventListener("pagehide", () => this.leave());
  }

  /**
   * Have a prompt run and follow it. Throws `ApiError` where it is refused.
   * @param {Prompt} prompt
   * @param {any} document the drawing, where it is true to the prompt
   * @param {Record<string, string> | null} [from] the job of which this one is a change
   */
  async run(prompt, document, from = null) {
    await Promise.race([this.socket.opened, new Promise((done) => setTimeout(done, 2000))]);
    const extra_data = { ...(document ? { extra_pnginfo: { workflow: document } } : {}), ...(from ? { made_from: from } : {}) };
    const body = { prompt, extra_data, client_id: this.socket.clientId };
    const answer = await call("/prompt", { body });
    this.watch(answer.prompt_id, prompt);
    return answer;
  }

  /** Go on with a job that was begun before the page was loaded; one that is gone is none. @param {string} jobId */
  async follow(jobId) {
    const job = await call(`/jobs/${encodeURIComponent(jobId)}`).catch(() => null);
    if (!job || this.jobId) return;
    this.watch(jobId, job.workflow.prompt);
    if (job.status === "in_progress") this.tell(t("started"));
    await this.look();
  }

  /** Keep in the tab what runs, for the page that is loaded next. */
  leave() {
    if (!this.jobId) return;
    try {
      sessionStorage.setItem(LEFT, JSON.stringify({ jobId: this.jobId, clientId: this.socket.clientId }));
    } catch {
      // a browser that keeps nothing
    }
  }

  /** @param {string} jobId @param {Prompt} prompt */
  watch(jobId, prompt) {
    this.jobId = jobId;
    this.prompt = prompt;
    this.began = performance.now();
    this.first = null;
    this.tell(t("waiting"));
    replace(this.links);
    this.bar.hidden = this.stop.hidden = false;
    this.bar.removeAttribute("value");
    this.element.setAttribute("aria-busy", "true");
  }

  /** @param {string} text */
  tell(text) {
    this.status.textContent = text;
    this.status.classList.remove("error");
  }

  /** @param {any} message */
  heard(message) {
    const { type, data } = message;
    if (!this.jobId || data?.prompt_id !== this.jobId) return;
    if (type === "executing" && data.node) this.tell(t("running", { node: this.titleOf(data.node) }));
    if (type === "progress") {
      this.bar.max = data.max;
      this.bar.value = data.value;
      let first = this.first;
      if (first === null || data.value < first) {
        first = data.value > 1 ? Number(data.value) : 0; // of a job that is taken up, what was made before counts for no time
        if (first) this.began = performance.now();
      }
      this.first = first;
      const made = data.value - first, passed = performance.now() - (this.began ?? 0);
      const left = made > 0 ? duration((passed / made) * (data.max - data.value)) : "";
      this.tell(t(left ? "step" : "stepAlone", { value: data.value, max: data.max, left }));
    }
    if (["execution_success", "execution_error", "execution_interrupted"].includes(type)) this.look();
  }

  /** @param {{ meta: any, picture: Blob }} preview */
  saw({ meta, picture }) {
    if (meta.prompt_id === this.jobId) this.show(URL.createObjectURL(picture), t("preview"));
  }

  /** @param {string} url @param {string} alt */
  show(url, alt) {
    this.compare(false);
    const before = this.picture.src;
    this.picture.src = url;
    this.picture.alt = alt;
    this.picture.hidden = false;
    this.empty.hidden = true;
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }

  /** The newest result beside the one before it, or alone. @param {boolean} isOn */
  compare(isOn) {
    this.frame.hidden = isOn;
    this.comparison.element.hidden = !isOn;
    this.beside.setAttribute("aria-pressed", String(isOn));
    if (isOn) this.comparison.show(this.results[1], this.results[0]);
  }

  /** @param {string} nodeId */
  titleOf(nodeId) {
    const node = this.prompt[nodeId];
    return node?._meta?.title ?? node?.class_type ?? nodeId;
  }

  async cancel() {
    if (!this.jobId) return;
    this.stop.disabled = true;
    await call(`/jobs/${encodeURIComponent(this.jobId)}/cancel`, { method: "POST" }).catch((error) => this.tell(told(error)));
    this.stop.disabled = false;
    await this.look();
  }

  /** Ask how the job is: at its end, and from time to time, in case the line was lost. */
  async look() {
    const jobId = this.jobId;
    if (!jobId) return;
    const job = await call(`/jobs/${encodeURIComponent(jobId)}`).catch((error) => (error.status === 404 ? null : error));
    if (jobId !== this.jobId || job instanceof Error) return;
    if (job === null || ENDS.includes(job.status)) this.finish(job);
  }

  /** @param {import("./api.js").JobDetail | null} job */
  finish(job) {
    this.jobId = null;
    this.bar.hidden = this.stop.hidden = true;
    this.element.removeAttribute("aria-busy");
    if (job?.status === "completed") this.finished(job);
    else this.failed(job);
    this.dispatchEvent(new CustomEvent("ended", { detail: job }));
  }

  /** @param {import("./api.js").JobDetail} job */
  finished(job) {
    const files = pictures(job.outputs);
    const took = duration((job.execution_end_time ?? 0) - (job.execution_start_time ?? 0));
    this.tell(files.length ? t("done", { time: took }) : t("noPicture", { time: took }));
    say(this.status.textContent ?? "");
    if (!files.length) return;
    const alt = t("pictureOf", { text: promptText(job.workflow.prompt) });
    this.show(viewUrl(files[0]), alt);
    this.results = [{ url: viewUrl(files[0]), name: files[0].filename }, ...this.results].slice(0, 2);
    replace(this.links,
      h("a", { class: "button quiet", href: viewUrl(files[0]), download: files[0].filename, text: t("download") }),
      h("a", { class: "button quiet", href: `/gallery#job=${encodeURIComponent(job.id)}`, text: t("inGallery") }),
      this.results.length > 1 && this.beside);
    for (const file of files) {
      const open = () => this.show(viewUrl(file), alt);
      this.more.prepend(h("button", { type: "button", class: "thumb", title: file.filename, on: { click: open } },
        h("img", { src: viewUrl(file, true), alt: file.filename, loading: "lazy" })));
    }
  }

  /** @param {import("./api.js").JobDetail | null} job */
  failed(job) {
    if (job === null || job.status === "cancelled") this.tell(t("cancelled"));
    else {
      const { node_id, exception_message } = job.execution_error ?? {};
      const place = node_id ? `${this.titleOf(node_id)}: ` : "";
      this.tell(t("failed", { reason: place + String(exception_message ?? "").trim() }));
      this.status.classList.add("error");
    }
    say(this.status.textContent ?? "");
    if (this.picture.src.startsWith("blob:")) {
      this.picture.hidden = true;
      this.empty.hidden = false;
    }
  }
}

/**
 * The longest text of a prompt's nodes, which is what a person wrote.
 * @param {Prompt} prompt
 */
export function promptText(prompt) {
  const texts = Object.values(prompt ?? {}).flatMap(({ class_type, inputs }) =>
    class_type.includes("TextEncode") ? Object.values(inputs ?? {}).filter((each) => typeof each === "string") : []);
  return texts.reduce((best, each) => (each.length > best.length ? each : best), "");
}
