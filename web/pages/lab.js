// The sampler lab: one workflow under many samplers, schedules, step counts, guidance and seeds, as it happens.
import { Socket, call, viewUrl } from "./api.js";
import { h, keepFile, later, replace } from "./dom.js";
import { fileDoor, inspectFile } from "./dropped.js";
import { pack, unpack } from "./exact.js";
import { Cells, freshRun, isRun } from "./lab-cells.js";
import { csvOf, latentsOf, pythonOf, rowName, sheetOf } from "./lab-export.js";
import { namesField, numbersField } from "./lab-fields.js";
import { Film, cellName, figure } from "./lab-film.js";
import { Plot } from "./plot.js";
import { duration, say, start, told } from "./shell.js";
import { NODES, t } from "./strings.js";

/** @typedef {import("./lab-cells.js").Cell} Cell */
/** @typedef {import("./lab-cells.js").Plan} Plan */
/** @typedef {import("./plot.js").Line} Line */
const SOURCES = ["template", "name", "job", "w"];
const DEFAULTS = { template: "txt2img", samplers: "euler,heun,dpmpp_2m", schedules: "sgm_uniform,karras", steps: "4,8,16" };
const REFERENCE = "heun/sgm_uniform";
const LOOK_MS = 2500;
const MOST_CELLS = 400;

const main = start("nav.lab");
const cells = new Cells(new Socket());
const film = new Film(cells);
const remember = later(() => { writeUrl(); plan(); }, 250);
const picker = h("select", { "aria-label": t("workflow"), on: { change: choose } });
const fields = {
  samplers: namesField(t("lab.samplers"), remember),
  schedules: namesField(t("lab.schedules"), remember),
  caches: namesField(t("lab.caches"), remember),
  steps: numbersField(t("field.steps"), /^[1-9]\d{0,2}$|^1000$/, remember),
  guidance: numbersField(t("field.cfg"), /^\d{1,3}(\.\d+)?$/, remember),
  seeds: numbersField(t("lab.seeds"), /^\d{1,20}$/, remember),
};
const reference = h("input", { type: "text", id: "reference", "aria-describedby": "reference-hint", autocomplete: "off", on: { input: remember } });
const problem = h("div", { class: "notice error", role: "alert", hidden: true });
const cost = h("p", { class: "muted", role: "status" });
const go = h("button", { type: "submit", class: "primary", disabled: true, text: t("lab.run") });
const stop = h("button", { type: "button", class: "quiet", hidden: true, text: t("cancel"), on: { click: () => cells.stop().catch(complain) } });
const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": t("progress") });
const curves = new Plot({ title: t("lab.curves"), x: t("lab.step"), y: t("lab.sigma"), isLog: false }, t("lab.noCurves"));
const precision = new Plot({ title: t("lab.precision"), x: t("lab.evaluations"), y: t("lab.distance"), isLog: true }, t("lab.noPoints"));
const drift = new Plot({ title: t("lab.driftPlot"), x: t("lab.evaluations"), y: t("lab.drift"), isLog: true }, t("lab.noPoints"));
const grid = h("table", { class: "cells" });
const exports = h("div", { class: "row wrap" }, [["CSV", csv], ["PNG", png], ["safetensors", latents], ["Python", python]].map(([name, action]) =>
  h("button", { type: "button", class: "quiet", text: String(name), on: { click: () => /** @type {() => Promise<void>} */ (action)().catch(complain) } })));
/** @type {{ kind: string, value: string }} */
let source = { kind: "template", value: DEFAULTS.template };
/** @type {[string, string][]} values of other nodes, as the run page's link has them */
let changes = [];
/** @type {Plan | null} */
let planned = null;
/** @type {import("./api.js").Prompt} */
let prompt = {};
let written = "";
let asked = 0;
/** @type {Map<string, HTMLButtonElement>} */
const buttons = new Map();

const [opener, file] = fileDoor(drop);
main.classList.add("wide");
main.append(
  h("section", null, h("h1", { text: t("nav.lab") }), h("p", { class: "muted", text: t("lab.lead") })),
  h("div", { class: "lab" },
    h("form", { class: "panel", novalidate: true, on: { submit } },
      h("div", { class: "source" }, h("label", { class: "field" }, h("span", { text: t("workflow") }), picker), opener, file),
      Object.values(fields).map(({ element }) => element),
      h("div", { class: "field" }, h("label", { for: "reference", text: t("lab.reference") }), reference,
        h("p", { class: "hint", id: "reference-hint", text: t("lab.referenceHint") })),
      problem, cost, bar, h("div", { class: "go" }, go, stop)),
    h("section", { class: "plots" }, curves.element, precision.element, drift.element)),
  h("section", { "aria-label": t("lab.grid") }, h("div", { class: "row spread tools" }, h("h2", { text: t("lab.grid") }), exports),
    h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t("lab.grid") }, grid)),
  film.element);
const drawPoints = later(showPrecision, 60);
cells.addEventListener("changed", (event) => {
  paint(/** @type {CustomEvent} */ (event).detail);
  drawPoints();
});
cells.socket.addEventListener("message", (event) => {
  const { type } = /** @type {CustomEvent} */ (event).detail;
  if (["status", "execution_success", "execution_error", "execution_interrupted"].includes(type)) look();
});
const look = later(() => { if (cells.isOpen || cells.isSubmitting) cells.look().catch(() => {}); }, 200);
film.addEventListener("shut", (event) => {
  writeUrl();
  buttons.get(/** @type {CustomEvent} */ (event).detail?.jobId)?.focus(); // the one that was pressed may have been laid anew
});
window.addEventListener("hashchange", () => { if (location.hash.slice(1) !== written) readUrl(); });
window.setInterval(look, LOOK_MS);

/** What the URL says, or a comparison worth seeing. */
async function readUrl() {
  const said = new URLSearchParams(location.hash.slice(1));
  const kind = SOURCES.find((each) => said.has(each)) ?? "template";
  source = { kind, value: said.get(kind) ?? DEFAULTS.template };
  changes = [...said].filter(([name]) => name.includes("."));
  for (const name of /** @type {const} */ (["samplers", "schedules", "steps"])) fields[name].set((said.get(name) ?? DEFAULTS[name]).split(","));
  for (const name of /** @type {const} */ (["guidance", "seeds", "caches"])) fields[name].set((said.get(name) ?? "").split(",").filter(Boolean));
  reference.value = said.get("reference") ?? REFERENCE;
  const run = said.get("run");
  cells.name(isRun(run) ? /** @type {string} */ (run) : "");
  picker.value = `${source.kind}:${source.value}`;
  await plan();
  await cells.look().catch(complain);
  const open = [...cells.all.values()].find(({ jobId }) => jobId === said.get("cell"));
  if (open) show(open);
}

function writeUrl() {
  const said = new URLSearchParams([[source.kind, source.value], ...changes]);
  for (const [name, field] of Object.entries(fields)) if (field.values().length) said.set(name, field.values().join(","));
  said.set("reference", reference.value.trim());
  if (cells.run) said.set("run", cells.run);
  if (film.cell) said.set("cell", film.cell.jobId);
  written = String(said);
  history.replaceState(null, "", `#${written}`);
}

/** The workflow, as the server's calls want it. */
async function workflow() {
  const { kind, value } = source;
  if (kind === "w") return { workflow: await unpack(value) };
  return { [kind === "job" ? "job_id" : kind]: value };
}

/** Ask for levels, cost and graphs of what stands here; the newest question counts. */
async function plan() {
  const mine = (asked += 1);
  go.disabled = true;
  const wrong = ["samplers", "schedules", "steps"].map((name) => fields[/** @type {keyof typeof fields} */ (name)].problem()).find(Boolean);
  try {
    if (wrong) throw new Error(wrong);
    const body = { ...(await workflow()), set: changes.map(([place, value]) => `${place}=${value}`), reference: reference.value.trim(),
      samplers: fields.samplers.values(), schedules: fields.schedules.values(), caches: fields.caches.values(), steps: fields.steps.values().map(Number) };
    const found = await call("/lab/plan", { body });
    if (mine !== asked) return;
    planned = found;
    fit(found);
    complain(null);
  } catch (error) {
    if (mine === asked) complain(error);
  }
}

/** Lists, plots and the grid for a plan. @param {Plan} found */
function fit(found) {
  fields.samplers.offer(found.choices.samplers);
  fields.schedules.offer(found.choices.schedules);
  fields.caches.offer(found.choices.caches);
  if (!fields.guidance.values().length && "cfg" in found.values) fields.guidance.set([String(found.values.cfg)]);
  if (!fields.seeds.values().length && found.seed_name) fields.seeds.set([String(found.values[found.seed_name])]);
  const [guidance, seeds] = [fields.guidance, fields.seeds].map((field) => (field.values().length ? field.values() : [""]));
  drift.element.hidden = found.caches.length === 0;
  if (found.levels.length * guidance.length * seeds.length * (1 + found.caches.length) > MOST_CELLS) throw new Error(t("lab.tooMany", { most: MOST_CELLS }));
  const bad = [fields.guidance, fields.seeds].find((field) => field.values().length && field.problem());
  if (bad) throw new Error(bad.problem());
  if (found.reference.problem) throw new Error(found.reference.problem);
  cells.lay(found, guidance, seeds);
  lay();
  showCurves(found);
  showPrecision();
  go.disabled = false;
}

/** The longest run of each schedule, one line each. @param {Plan} found */
function showCurves({ levels }) {
  /** @type {Map<string, import("./lab-cells.js").Row>} */
  const longest = new Map();
  for (const row of levels) {
    if (row.sigmas.length > (longest.get(row.schedule)?.sigmas.length ?? 0)) longest.set(row.schedule, row);
  }
  curves.show([...longest.values()].map((row, place) => ({
    name: t("lab.curve", { schedule: row.schedule, steps: row.steps }), colour: place, dash: 0,
    points: row.sigmas.map((sigma, step) => /** @type {[number, number]} */ ([step, sigma])),
  })));
}

/** Distance against evaluations; of several seeds the root mean square, as `sigmagraph compare` plots it. */
function showPrecision() {
  const all = [...cells.all.values()];
  precision.show(linesOf(all, ({ distance }) => distance));
  if (!drift.element.hidden) drift.show(linesOf(all, (cell) => cell.drift));
  showCost();
}

/** A line per row of the grid: a figure against the evaluations that were made. @param {Cell[]} all @param {(cell: Cell) => number | null} figureOf */
function linesOf(all, figureOf) {
  const names = (/** @type {(cell: Cell) => string} */ of) => [...new Set(all.map(of))];
  const samplers = names(({ row }) => row.sampler), schedules = names(({ row }) => row.schedule), caches = names(({ cache }) => cache?.name ?? "");
  /** @type {Map<string, Line & { found: Map<number, { made: number, far: number }[]> }>} */
  const lines = new Map();
  for (const cell of all) {
    const { row, cache, made } = cell, far = figureOf(cell);
    if (far === null) continue;
    const name = rowName(cell, { guidance: fields.guidance.values().length, seeds: 1 }).join(" / ");
    const colour = samplers.indexOf(row.sampler) + samplers.length * caches.indexOf(cache?.name ?? "");
    const line = lines.get(name) ?? { name, colour, dash: schedules.indexOf(row.schedule), points: [], found: new Map() };
    line.found.set(row.steps, [...(line.found.get(row.steps) ?? []), { made, far }]);
    lines.set(name, line);
  }
  for (const line of lines.values()) {
    line.points = [...line.found.values()].map((found) => /** @type {[number, number]} */ ([mean(found.map(({ made }) => made)),
      Math.sqrt(mean(found.map(({ far }) => far * far)))])).sort(([a], [b]) => a - b);
  }
  return [...lines.values()];
}

const mean = (/** @type {number[]} */ numbers) => numbers.reduce((sum, each) => sum + each, 0) / numbers.length;

/** The empty grid: a row per run, a column per step count. */
function lay() {
  const all = [...cells.all.values()];
  const steps = [...new Set(all.map(({ row }) => row.steps))].sort((a, b) => a - b);
  /** @type {Map<string, Map<number, Cell>>} */
  const rows = new Map();
  for (const cell of all) {
    const name = rowName(cell, counts()).join("\n");
    rows.set(name, (rows.get(name) ?? new Map()).set(cell.row.steps, cell));
  }
  buttons.clear();
  replace(grid, h("caption", { class: "unseen", text: t("lab.grid") }),
    h("thead", null, h("tr", null, h("td"), steps.map((each) => h("th", { scope: "col", text: t("lab.steps", { steps: each }) })))),
    h("tbody", null, [...rows].map(([name, found]) => h("tr", null,
      h("th", { scope: "row" }, name.split("\n").map((line) => h("span", { text: line }))),
      steps.map((each) => h("td", null, found.get(each) && button(/** @type {Cell} */ (found.get(each)))))))));
  all.forEach(paint);
}

const counts = () => ({ guidance: fields.guidance.values().length, seeds: fields.seeds.values().length });

/** @param {Cell} cell */
function button(cell) {
  const made = h("button", { type: "button", class: "cell", on: { click: () => show(/** @type {Cell} */ (cells.all.get(cell.jobId))) } });
  buttons.set(cell.jobId, made);
  return made;
}

/** What a cell shows now. @param {Cell} cell */
function paint(cell) {
  const place = buttons.get(cell.jobId);
  if (!place) return;
  const { status, picture, distance, drift: apart, seconds, share } = cell;
  const state = cell.row.problem ? "failed" : status;
  const words = [distance !== null && figure(distance), apart !== null && t("lab.driftOf", { drift: figure(apart) }), status === "completed" && (seconds === null ? t("lab.kept") : duration(seconds * 1000))].filter(Boolean);
  replace(place,
    picture ? h("img", { src: viewUrl(picture, true), alt: "", loading: "lazy" }) : h("span", { class: `blank ${state}`, text: state === "none" ? "" : t(`state.${state}`) }),
    status === "in_progress" && h("progress", { max: 1, value: share, "aria-label": t("progress") }),
    words.length > 0 && h("span", { class: "muted", text: words.join(" · ") }));
  place.setAttribute("aria-label", [cellName(cell), state !== "none" && t(`state.${state}`), ...words].filter(Boolean).join(", "));
}

/** How much there is to do, and how long it took so far to tell how long it takes. */
function showCost() {
  const all = [...cells.all.values()];
  const done = all.filter(({ status }) => status === "completed");
  const left = all.filter(({ status, row }) => status !== "completed" && status !== "failed" && !row.problem);
  const evaluations = all.reduce((sum, { row }) => sum + row.evaluations, 0);
  const timed = done.filter(({ seconds }) => seconds !== null);
  const pace = timed.reduce((sum, { seconds }) => sum + (seconds ?? 0), 0) / timed.reduce((sum, { row }) => sum + row.evaluations, 0);
  const toGo = Number.isFinite(pace) ? left.reduce((sum, { row }) => sum + row.evaluations, 0) * pace * 1000 : 0;
  cost.textContent = [t("lab.cost", { cells: all.length, evaluations }), done.length > 0 && t("lab.done", { done: done.length }),
    toGo > 0 && t("lab.left", { time: duration(toGo) })].filter(Boolean).join(" · ");
  const isBusy = cells.isOpen || cells.isSubmitting;
  stop.hidden = bar.hidden = !isBusy;
  bar.value = all.length ? done.length / all.length : 0;
  go.textContent = t(done.length && left.length ? "lab.goOn" : done.length && !left.length ? "lab.again" : "lab.run");
}

/** @param {Event} event */
async function submit(event) {
  event.preventDefault();
  if (!planned || go.disabled) return;
  try {
    if (!cells.run || !cells.waiting.length) rename(planned);
    else fit(planned);
    const ready = planned;
    await begin().catch((error) => {
      if (error.body?.error?.type !== "invalid_prompt_id") throw error;
      rename(ready); // the link's run is somebody else's
      return begin();
    });
  } catch (error) {
    complain(error);
  }
  showCost();
}

/** A run of its own, with no cell made. @param {Plan} found */
function rename(found) {
  cells.name(freshRun());
  fit(found);
}

async function begin() {
  writeUrl();
  await cells.start();
  await cells.look();
}

/** @param {Cell} cell */
function show(cell) {
  if (!planned) return;
  if (!cells.run) rename(planned);
  film.open([...cells.all.values()].find(({ row, guidance, seed, cache }) => row === cell.row && guidance === cell.guidance && seed === cell.seed && cache === cell.cache) ?? cell, planned);
  writeUrl();
}

/** Say what is wrong where it is seen; nothing with null. @param {any} error */
function complain(error) {
  replace(problem, error && h("p", { dir: "auto", text: told(error) }));
  problem.hidden = !error;
}

function choose() {
  const [kind, ...rest] = picker.value.split(":");
  if (!rest.length) return;
  source = { kind, value: rest.join(":") };
  fresh();
}

/** A picture that carries a workflow, or a workflow's file, in the place of what stands here. @param {File} dropped */
async function drop(dropped) {
  try {
    const { prompt: found } = await inspectFile(dropped);
    source = { kind: "w", value: await pack(found) };
    picker.value = "";
    fresh();
    say(t("opened", { name: dropped.name }));
  } catch (error) {
    complain(error);
  }
}

/** Guidance and seeds as another workflow has them. */
function fresh() {
  changes = [];
  fields.guidance.set([]);
  fields.seeds.set([]);
  remember();
}

/** The workflows there are. */
async function list() {
  const [groups, saved] = await Promise.all([call("/templates/index.json").catch(() => []), call("/workflows").catch(() => ({ workflows: [] }))]);
  const options = (/** @type {any[]} */ rows, /** @type {string} */ kind) => rows.map((each) => h("option", { value: `${kind}:${each.name}`, lang: kind === "template" ? NODES : null, text: each.title ?? each.name }));
  replace(picker, h("option", { value: "", text: t("fromElsewhere"), disabled: true }),
    h("optgroup", { label: t("templates") }, options(groups.flatMap((/** @type {any} */ each) => each.templates), "template")),
    saved.workflows.length > 0 && h("optgroup", { label: t("savedOnes") }, options(saved.workflows, "name")));
  picker.value = `${source.kind}:${source.value}`;
  if (picker.selectedIndex < 0) picker.value = "";
}

async function csv() {
  keepFile(csvOf([...cells.all.values()]), "lab.csv");
}

async function png() {
  keepFile(await sheetOf([...cells.all.values()], counts(), [curves, precision, ...(drift.element.hidden ? [] : [drift])]), "lab.png");
}

async function latents() {
  keepFile(await latentsOf([...cells.all.values()]), "lab.safetensors");
}

async function python() {
  const inspected = await call("/inspect", { body: await workflow() });
  prompt = inspected.prompt;
  for (const [place, value] of changes) {
    const [node, name] = place.split(/\.(.*)/s);
    if (prompt[node]) prompt[node].inputs[name] = typeof prompt[node].inputs[name] === "number" ? Number(value) : value;
  }
  const words = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.values()]));
  const text = pythonOf(prompt, /** @type {any} */ ({ ...words, reference: reference.value.trim() }));
  keepFile(new Blob([text], { type: "text/x-python" }), "lab.py");
  say(t("lab.written", { name: "lab.py" }));
}

await Promise.all([list(), readUrl()]);
