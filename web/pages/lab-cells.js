// The cells of a comparison as jobs: each has an id made of the run and its own graph, so they are found again.
import { call, pictures } from "./api.js";
import { wholeNumber, writeExact } from "./exact.js";

/** @typedef {import("./api.js").Prompt} Prompt */
/** @typedef {import("./api.js").FileRecord} FileRecord */
/** @typedef {{ sampler: string, schedule: string, steps: number, sigmas: number[], evaluations: number, problem: string | null }} Row */
/**
 * @typedef {object} Plan  the answer of `POST /lab/plan`
 * @property {Prompt} cell
 * @property {Prompt | null} film
 * @property {string} sampler
 * @property {string | null} seed_name
 * @property {Record<string, any>} values
 * @property {{ samplers: string[], schedules: string[], caches: string[] }} choices
 * @property {Row[]} levels
 * @property {Row} reference
 * @property {Cache[]} caches
 */
/** @typedef {{ name: string, class_type: string, inputs: Record<string, any> }} Cache  a step cache, written `NAME:NUMBER`, as a node */
/**
 * @typedef {object} Cell
 * @property {Row} row
 * @property {string} guidance
 * @property {string} seed
 * @property {Cache | null} cache
 * @property {string} jobId
 * @property {Prompt} prompt
 * @property {"none" | "pending" | "in_progress" | "completed" | "failed" | "cancelled"} status
 * @property {number} share how much of its sampling is done, 0 to 1
 * @property {number | null} distance
 * @property {number | null} drift of a cached cell, how far it is from the same one without the cache
 * @property {number | null} estimate what the run says of its own drift
 * @property {number} made evaluations that were not left out
 * @property {number | null} seconds of sampling; null where the result was there already
 * @property {FileRecord | null} picture
 * @property {FileRecord | null} latent
 * @property {string} problem
 */

const REFERENCE = "lab_reference";
const DISTANCE = "lab_distance";
const LATENT = "lab_latent";
const CACHE = "lab_cache", WHOLE = "lab_whole", DRIFT = "lab_drift";
const ENDED = ["completed", "failed", "cancelled"];
const RETRY_MS = 1500;
const MOST_LISTED = 1000;

/** A run's name: the first 24 places of its jobs' ids; the rest is a digest of the graph. */
export function freshRun() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-4${digits.slice(12, 15)}-8${digits.slice(15, 18)}-`;
}

/** Whether a text is a run's name. @param {string | null} text */
export const isRun = (text) => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-$/.test(text ?? "");

/** 48 bits that differ between graphs (Bryc's cyrb53, public domain, cut). @param {string} text */
function digest(text) {
  let one = 0xdeadbeef, other = 0x41c6ce57;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    one = Math.imul(one ^ code, 2654435761);
    other = Math.imul(other ^ code, 1597334677);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(other ^ (other >>> 13), 3266489909);
  other = Math.imul(other ^ (other >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return (other >>> 0).toString(16).padStart(8, "0") + (one >>> 16).toString(16).padStart(4, "0");
}

/**
 * A graph of the plan with a cell's values on its sampler, and on the reference what both share.
 * Under a step cache it samples a second time without one, which the node cache has where that cell has run.
 * @param {Plan} plan @param {Prompt} graph @param {Row} row @param {string} guidance @param {string} seed @param {Cache | null} [cache]
 */
export function withValues(plan, graph, row, guidance, seed, cache = null) {
  const prompt = structuredClone(graph);
  const shared = {
    ...("cfg" in plan.values ? { cfg: Number(guidance) } : {}),
    ...(plan.seed_name ? { [plan.seed_name]: wholeNumber(seed) } : {}),
  };
  Object.assign(prompt[plan.sampler].inputs, shared, { sampler_name: row.sampler, scheduler: row.schedule, steps: row.steps });
  if (prompt[REFERENCE]) Object.assign(prompt[REFERENCE].inputs, shared);
  if (cache) {
    const sampler = prompt[plan.sampler];
    if (prompt[REFERENCE]) {
      prompt[WHOLE] = structuredClone(sampler);
      prompt[DRIFT] = { class_type: "LatentDistance", inputs: { samples: [plan.sampler, 0], reference: [WHOLE, 0] } };
    }
    prompt[CACHE] = { class_type: cache.class_type, inputs: { ...cache.inputs, model: sampler.inputs.model } };
    sampler.inputs.model = [CACHE, 0];
  }
  return prompt;
}

/** The jobs of one run. Sends `changed` with the cells that did. */
export class Cells extends EventTarget {
  /** @param {import("./api.js").Socket} socket */
  constructor(socket) {
    super();
    this.socket = socket;
    this.run = "";
    /** @type {Map<string, Cell>} by job id */
    this.all = new Map();
    this.isSubmitting = false;
    this.sampler = "";
    socket.addEventListener("message", (event) => this.heard(/** @type {CustomEvent} */ (event).detail));
  }

  /** @param {Plan} plan @param {string[]} guidance @param {string[]} seeds */
  lay(plan, guidance, seeds) {
    const before = this.all;
    this.all = new Map();
    this.sampler = plan.sampler;
    for (const row of plan.levels) {
      for (const scale of guidance) for (const seed of seeds) for (const cache of [null, ...plan.caches]) {
        const prompt = withValues(plan, plan.cell, row, scale, seed, cache);
        const jobId = this.idOf(writeExact(prompt));
        const blank = { share: 0, distance: null, drift: null, estimate: null, made: row.evaluations, seconds: null, picture: null, latent: null, problem: row.problem ?? "" };
        const known = before.get(jobId);
        this.all.set(jobId, known ? { ...known, row, cache } : { row, guidance: scale, seed, cache, jobId, prompt, status: "none", ...blank });
      }
    }
  }

  /** The id of the job that runs a graph in this run. @param {string} graph */
  idOf(graph) {
    return this.run + digest(graph);
  }

  /** Cells that can run and have not begun. */
  get waiting() {
    return [...this.all.values()].filter(({ status, row }) => ["none", "cancelled"].includes(status) && !row.problem);
  }

  get isOpen() {
    return [...this.all.values()].some(({ status }) => status === "pending" || status === "in_progress");
  }

  /** Another name: everything runs anew. @param {string} run */
  name(run) {
    this.run = run;
    this.all = new Map();
  }

  /** Submit what has not begun; a full queue is waited for. */
  async start() {
    if (this.isSubmitting) return;
    this.isSubmitting = true;
    try {
      for (const cell of this.waiting) {
        if (!this.isSubmitting || this.all.get(cell.jobId) !== cell) break;
        if (cell.status === "cancelled") await call("/history", { body: { delete: [cell.jobId] } });
        await this.submit(cell.jobId, cell.prompt);
        this.set(cell, { status: "pending", share: 0 });
      }
    } finally {
      this.isSubmitting = false;
    }
  }

  /** One job; a job that is there already is fine. @param {string} jobId @param {Prompt} prompt @param {boolean} [isUrgent] */
  async submit(jobId, prompt, isUrgent = false) {
    for (;;) {
      try {
        const extra_data = { lab: this.run };
        return await call("/prompt", { body: { prompt, prompt_id: jobId, client_id: this.socket.clientId, extra_data, front: isUrgent } });
      } catch (error) {
        const { status, body } = /** @type {any} */ (error);
        if (body?.error?.type === "invalid_prompt_id" && (await this.detail(jobId))) return null;
        if (![0, 429, 503].includes(status)) throw error;
        await new Promise((done) => setTimeout(done, RETRY_MS));
      }
    }
  }

  /** Cancel what waits and what runs. */
  async stop() {
    this.isSubmitting = false;
    const ids = [...this.all.values()].filter(({ status }) => !ENDED.includes(status) && status !== "none").map(({ jobId }) => jobId);
    if (ids.length) await call("/jobs/cancel", { body: { job_ids: ids } });
    await this.look();
  }

  /** The run's jobs, its films among them. @returns {Promise<import("./api.js").Job[]>} */
  async list() {
    if (!this.run) return [];
    const query = new URLSearchParams({ text: this.run, limit: String(MOST_LISTED) });
    return (await call(`/jobs?${query}`)).jobs;
  }

  /** Ask how the run's jobs are; what ended since is read whole. */
  async look() {
    const jobs = await this.list();
    const moved = jobs.filter((/** @type {any} */ job) => {
      const cell = this.all.get(job.id);
      return cell && cell.status !== job.status;
    });
    await Promise.all(moved.map(async (/** @type {any} */ job) => {
      const cell = /** @type {Cell} */ (this.all.get(job.id));
      if (!ENDED.includes(job.status)) this.set(cell, { status: job.status });
      else this.ended(cell, await this.detail(job.id));
    }));
  }

  /** @param {string} jobId @returns {Promise<any>} */
  detail(jobId) {
    return call(`/jobs/${encodeURIComponent(jobId)}`).catch((error) => {
      if (error.status === 404) return null;
      throw error;
    });
  }

  /** @param {Cell} cell @param {any} job */
  ended(cell, job) {
    if (!job) return;
    const ran = job.nodes?.[this.sampler];
    const report = job.outputs[this.sampler]?.step_cache?.[0];
    this.set(cell, {
      status: job.status,
      share: 1,
      distance: job.outputs[DISTANCE]?.distance?.[0] ?? null,
      drift: job.outputs[DRIFT]?.distance?.[0] ?? null,
      estimate: report?.drift_estimate ?? null,
      made: report?.asked ? cell.row.evaluations * (1 - report.skipped / report.asked) : cell.row.evaluations,
      seconds: ran?.outcome === "executed" ? ran.milliseconds / 1000 : null,
      picture: pictures(job.outputs)[0] ?? null,
      latent: job.outputs[LATENT]?.latents?.[0] ?? null,
      problem: String(job.execution_error?.exception_message ?? "").trim(),
    });
  }

  /** @param {Cell} cell @param {Partial<Cell>} values */
  set(cell, values) {
    Object.assign(cell, values);
    this.dispatchEvent(new CustomEvent("changed", { detail: cell }));
  }

  /** @param {any} message */
  heard({ type, data }) {
    const cell = this.all.get(data?.prompt_id);
    if (!cell || ENDED.includes(cell.status)) return;
    if (type === "progress" && data.node === this.sampler) this.set(cell, { status: "in_progress", share: data.value / data.max });
    if (type === "executing" && data.node) this.set(cell, { status: "in_progress" });
  }
}
