// The server's public HTTP API as the pages use it, and its socket, which comes back by itself.
import { readExact, writeExact } from "./exact.js";

/** @typedef {{ filename: string, subfolder?: string, type?: string }} FileRecord */
/**
 * @typedef {object} Job  one line of `GET /jobs`
 * @property {string} id
 * @property {"pending" | "in_progress" | "completed" | "failed" | "cancelled"} status
 * @property {number} priority the place in the queue, smaller first
 * @property {number} create_time milliseconds since 1970
 * @property {number | null} execution_start_time
 * @property {number | null} execution_end_time
 * @property {number} outputs_count
 * @property {any} preview_output
 * @property {any} [execution_error]
 */
/** @typedef {Job & { outputs: Record<string, any>, workflow: { prompt: Prompt, extra_data: any } }} JobDetail */
/** @typedef {Record<string, { class_type: string, inputs: Record<string, any>, _meta?: { title?: string } }>} Prompt */
/**
 * @typedef {object} Inspected  the answer of `POST /inspect`
 * @property {Prompt} prompt
 * @property {any} document
 * @property {Record<string, string | string[]>} parameters
 * @property {{ inputs: { name: string, targets: string[] }[], outputs: string[] } | null} app
 * @property {string[]} warnings
 * @property {Record<string, any>} nodes
 * @property {Record<string, string | null>} unknown
 */

/** A refusal: what the server said, and its status; 0 where it could not be reached. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {any} [body] */
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** Told of `signed-out`, `signed-in` (with every answer that is not a refusal of the key), `offline` and `online`. */
export const signals = new EventTarget();

/**
 * Ask a path; a body that is no Blob is sent as JSON. Throws `ApiError`.
 * @param {string} path
 * @param {{ method?: string, body?: any, signal?: AbortSignal }} [options]
 * @returns {Promise<any>}
 */
export async function call(path, options = {}) {
  const { body, signal } = options;
  const isJson = body !== undefined && !(body instanceof Blob);
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, {
      method: options.method ?? (body === undefined ? "GET" : "POST"),
      body: isJson ? writeExact(body) : body,
      headers: isJson ? { "Content-Type": "application/json" } : {},
      signal: signal ?? null,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    signals.dispatchEvent(new Event("offline"));
    throw new ApiError(0, "offline");
  }
  if (response.status === 401) signals.dispatchEvent(new Event("signed-out"));
  else signals.dispatchEvent(new Event("signed-in"));
  const text = await response.text();
  const isObject = (response.headers.get("Content-Type") ?? "").includes("json");
  const answer = isObject && text ? readExact(text) : text;
  if (response.ok) return answer;
  const error = isObject ? answer?.error : text;
  throw new ApiError(response.status, String(error?.message ?? error ?? response.statusText), answer);
}

/**
 * Where a file of the server is; `preview` asks for it small in bytes.
 * @param {FileRecord} file
 * @param {boolean} [preview]
 */
export function viewUrl(file, preview = false) {
  const query = new URLSearchParams({ filename: file.filename, type: file.type ?? "output" });
  if (file.subfolder) query.set("subfolder", file.subfolder);
  if (preview) query.set("preview", "webp;75");
  return `/view?${query}`;
}

/**
 * Every picture among the outputs of a job.
 * @param {Record<string, any>} outputs
 * @returns {FileRecord[]}
 */
export function pictures(outputs) {
  return Object.values(outputs ?? {}).flatMap((each) => (Array.isArray(each.images) ? each.images : []));
}

/** The server's socket for this page: `message` events carry what it says, `preview` events a picture. */
export class Socket extends EventTarget {
  /** @param {string} [clientId] that of the same tab before it was loaded again: what it missed is told again */
  constructor(clientId) {
    super();
    this.clientId = clientId ?? crypto.randomUUID?.() ?? `page-${Math.random().toString(36).slice(2)}`;
    this.wait = 500;
    /** @type {Promise<void>} */
    this.opened = Promise.resolve();
    this.open();
  }

  /** Connect, and again whenever the line is lost. */
  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const ws = new WebSocket(`${scheme}://${location.host}/ws?clientId=${this.clientId}`);
    ws.binaryType = "arraybuffer";
    this.opened = new Promise((done) => {
      ws.onopen = () => {
        ws.send(JSON.stringify({ type: "feature_flags", data: { supports_preview_metadata: true } }));
        this.wait = 500;
        signals.dispatchEvent(new Event("online"));
        done();
      };
    });
    ws.onmessage = ({ data }) => this.heard(data);
    ws.onclose = () => {
      if (this.isLeaving) return;
      signals.dispatchEvent(new Event("offline"));
      window.setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(this.wait * 2, 8000);
    };
    window.addEventListener("pagehide", () => { this.isLeaving = true; }, { once: true });
  }

  /** @param {string | ArrayBuffer} data */
  heard(data) {
    if (typeof data === "string") {
      this.dispatchEvent(new CustomEvent("message", { detail: readExact(data) }));
      return;
    }
    const view = new DataView(data);
    if (view.getUint32(0) !== 4) return;
    const length = view.getUint32(4);
    const meta = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
    const picture = new Blob([new Uint8Array(data, 8 + length)], { type: meta.image_type });
    this.dispatchEvent(new CustomEvent("preview", { detail: { meta, picture } }));
  }
}
