// What a comparison leaves behind: a table, a sheet of pictures with its plots, latents, and the Python that makes it again.
import { viewUrl } from "./api.js";
import { h } from "./dom.js";
import { writeExact } from "./exact.js";
import { figure } from "./lab-film.js";
import { pictureOf } from "./plot.js";
import { t } from "./strings.js";

/** @typedef {import("./lab-cells.js").Cell} Cell */
const COLUMNS = ["sampler", "schedule", "steps", "guidance", "seed", "evaluations", "seconds", "distance", "problem"];
const OF_CACHES = ["cache", "drift_estimate", "drift"]; // further columns, where step caches are compared
const GAP = 8, HEADER = 30, GUTTER = 190, LARGEST = 256, PLOT = [620, 320];
const INK = "#1c1e21", PAPER = "#ffffff";

/** @param {Cell} cell */
const valuesOf = ({ row, guidance, seed, seconds, distance, problem, made }) =>
  [row.sampler, row.schedule, row.steps, guidance, seed, Number(made.toFixed(2)), seconds?.toFixed(3) ?? "", distance ?? "", problem];

/** The table with its heads. @param {Cell[]} cells */
function tableOf(cells) {
  const hasCaches = cells.some(({ cache }) => cache !== null);
  const ofCache = (/** @type {Cell} */ { cache, estimate, drift }) => (hasCaches ? [cache?.name ?? "", estimate ?? "", drift ?? ""] : []);
  return [[...COLUMNS, ...(hasCaches ? OF_CACHES : [])], ...cells.map((cell) => [...valuesOf(cell), ...ofCache(cell)])];
}

/** One line per cell, as `sigmagraph compare` writes it. @param {Cell[]} cells */
export function csvOf(cells) {
  const quoted = (/** @type {any} */ value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const lines = tableOf(cells).map((line) => line.map(quoted).join(","));
  return new Blob([`${lines.join("\n")}\n`], { type: "text/csv" });
}

/** The words of a cell's row in the table. @param {Pick<Cell, "row" | "guidance" | "seed" | "cache">} cell @param {{ guidance: number, seeds: number }} count */
export function rowName({ row, guidance, seed, cache }, count) {
  return [row.sampler, row.schedule, cache?.name, count.guidance > 1 && t("lab.atGuidance", { guidance }), count.seeds > 1 && t("lab.ofSeed", { seed })]
    .filter(Boolean).map(String);
}

/**
 * A sheet of every picture, a row per run and a column per step count, and the plots below.
 * @param {Cell[]} cells @param {{ guidance: number, seeds: number }} count @param {import("./plot.js").Plot[]} plots
 * @returns {Promise<Blob>}
 */
export async function sheetOf(cells, count, plots) {
  const rows = [...new Set(cells.map((cell) => rowName(cell, count).join("\n")))];
  const columns = [...new Set(cells.map(({ row }) => row.steps))].sort((a, b) => a - b);
  const images = await Promise.all(cells.map(({ picture }) => (picture ? loaded(viewUrl(picture)) : null)));
  const first = images.find((image) => image !== null);
  const factor = first ? Math.min(1, LARGEST / Math.max(first.naturalWidth, first.naturalHeight)) : 1;
  const [width, height] = first ? [first.naturalWidth * factor, first.naturalHeight * factor] : [128, 128];
  const drawn = await Promise.all(plots.filter((plot) => plot.lines.length).map((plot) => pictureOf(plot.drawn(PLOT[0], PLOT[1]))));
  const canvas = h("canvas", { width: Math.max(GUTTER + columns.length * (width + GAP), drawn.length && PLOT[0] + GAP),
    height: HEADER + rows.length * (height + GAP) + drawn.length * (PLOT[1] + GAP) });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = PAPER;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = INK;
  pen.font = "14px system-ui, sans-serif";
  columns.forEach((steps, place) => pen.fillText(t("lab.steps", { steps }), GUTTER + place * (width + GAP), 20));
  rows.forEach((name, place) => name.split("\n").forEach((line, below) => pen.fillText(line, GAP, HEADER + place * (height + GAP) + 16 + 18 * below, GUTTER - 2 * GAP)));
  cells.forEach((cell, place) => {
    const x = GUTTER + columns.indexOf(cell.row.steps) * (width + GAP);
    const y = HEADER + rows.indexOf(rowName(cell, count).join("\n")) * (height + GAP);
    const image = images[place];
    if (image) pen.drawImage(image, x, y, width, height);
    else pen.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  });
  drawn.forEach((image, place) => pen.drawImage(image, 0, HEADER + rows.length * (height + GAP) + place * (PLOT[1] + GAP)));
  return new Promise((done) => canvas.toBlob((blob) => done(/** @type {Blob} */ (blob)), "image/png"));
}

/** @param {string} url */
async function loaded(url) {
  const image = h("img", { src: url, alt: "" });
  await image.decode();
  return image;
}

/** The tensor of a file that SaveLatent wrote: its shape, kind and bytes. @param {ArrayBuffer} file */
function latentIn(file) {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const { latent_tensor: { dtype, shape, data_offsets: [from, to] } } = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  return { dtype, shape, bytes: new Uint8Array(file, 8 + length + from, to - from) };
}

/**
 * Every latent in one safetensors file, named SAMPLER/SCHEDULE/STEPS/GUIDANCE/SEED[/CACHE], and its levels under `sigmas/` and that name.
 * @param {Cell[]} cells
 */
export async function latentsOf(cells) {
  /** @type {Record<string, any>} */
  const header = { __metadata__: { made_by: "sigmagraph lab", table: writeExact(tableOf(cells)) } };
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  let at = 0;
  const add = (/** @type {string} */ name, /** @type {string} */ dtype, /** @type {number[]} */ shape, /** @type {Uint8Array<ArrayBuffer>} */ bytes) => {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  };
  const levels = cells.map(({ row }) => new Float64Array(row.sigmas));
  const names = cells.map(({ row, guidance, seed, cache }) =>
    [row.sampler, row.schedule, row.steps, guidance, seed, ...(cache ? [cache.name] : [])].join("/"));
  names.forEach((name, place) => add(`sigmas/${name}`, "F64", [levels[place].length], new Uint8Array(levels[place].buffer)));
  for (const [place, cell] of cells.entries()) {
    if (!cell.latent) continue;
    const response = await fetch(viewUrl(cell.latent));
    if (!response.ok) throw new Error(`${cell.latent.filename}: ${response.statusText}`);
    const { dtype, shape, bytes } = latentIn(await response.arrayBuffer());
    add(names[place], dtype, shape, bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padding = (8 - (text.length % 8)) % 8;
  const size = new DataView(new ArrayBuffer(8));
  size.setBigUint64(0, BigInt(text.length + padding), true);
  return new Blob([size.buffer, text, " ".repeat(padding), ...parts], { type: "application/octet-stream" });
}

/**
 * The program that makes the same comparison.
 * @param {import("./api.js").Prompt} prompt
 * @param {{ samplers: string[], schedules: string[], steps: string[], guidance: string[], seeds: string[], caches: string[], reference: string }} asked
 */
export function pythonOf(prompt, asked) {
  const list = (/** @type {string[]} */ words) => `[${words.map((each) => JSON.stringify(each)).join(", ")}]`;
  const numbers = (/** @type {string[]} */ words) => `[${words.join(", ")}]`;
  return `import json

import sigmagraph

workflow = json.loads(${JSON.stringify(writeExact(prompt))})
found = sigmagraph.compare(
    workflow,
    ${list(asked.samplers)},
    ${list(asked.schedules)},
    ${numbers(asked.steps)},
    guidance=${numbers(asked.guidance)},
    seeds=${numbers(asked.seeds)},${asked.caches.length ? `\n    caches=${list(asked.caches)},` : ""}
    reference=${JSON.stringify(asked.reference)},
)
for cell, evaluations, distance in found.ranking():
    print(cell, evaluations, f"{distance:.4g}")
found.write("lab")
`;
}

/** @param {Cell[]} cells */
export const summary = (cells) => {
  const done = cells.filter(({ status }) => status === "completed").length;
  const seconds = cells.reduce((sum, cell) => sum + (cell.seconds ?? 0), 0);
  return { done, seconds: figure(seconds) };
};
