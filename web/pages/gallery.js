// What runs, what waits, what was made.
import { Socket, call, pictures, viewUrl } from "./api.js";
import { ComparisonDialog } from "./compare.js";
import { Details } from "./details.js";
import { Filters, queryOf } from "./filters.js";
import { h, keepFile, later, replace } from "./dom.js";
import { Selection } from "./selection.js";
import { duration, moment, say, start, told } from "./shell.js";
import { t } from "./strings.js";
import { zip } from "./zip.js";

/** @typedef {import("./api.js").Job} Job */
const PAGE = 48;
const SHOWN = { all: "completed,failed,cancelled", completed: "completed", failed: "failed", cancelled: "cancelled" };

const main = start("nav.gallery");
const socket = new Socket();
const details = new Details();
const pair = new ComparisonDialog();
const selection = new Selection({ compare, download, remove });
const queue = h("ul", { class: "queue" });
const now = h("section", { "aria-label": t("queue") }, h("h2", { text: t("queue") }), queue);
const tiles = h("div", { class: "tiles" });
const count = h("p", { class: "muted", "aria-live": "polite" });
const more = h("button", { type: "button", class: "quiet", hidden: true, text: t("showMore"), on: { click: () => next() } });
const search = h("input", { type: "search", placeholder: t("searchHint"), "aria-label": t("search"), dir: "auto" });
const filters = new Filters(search);
const state = h("select", { "aria-label": t("state") },
  Object.keys(SHOWN).map((each) => h("option", { value: each, text: t(`state.${each}`) })));
/** @type {Job[]} */
let jobs = [];
let asked = 0, isStale = false; // stale: the search says something else than what is shown
/** @type {string[]} two jobs whose pictures lie beside each other */
let compared = [];
/** @type {Job[]} in the order they will run */
let waiting = [];
/** @type {Map<string, EventSource>} */
const followed = new Map();

main.classList.add("wide");
main.append(h("h1", { class: "unseen", text: t("nav.gallery") }), now,
  h("section", { "aria-label": t("nav.gallery") },
    h("div", { class: "row spread tools" }, h("h2", { text: t("made") }), h("div", { class: "row" }, search, state, selection.toggle)),
    filters.element, selection.element, count, tiles, h("div", { class: "center" }, more)),
  details.element);
const renewSoon = later(() => { writeUrl(); renew(); }, 300);
search.addEventListener("input", () => { isStale = true; renewSoon(); });
state.addEventListener("change", () => { writeUrl(); renew(); });
details.addEventListener("gone", (event) => forget(/** @type {CustomEvent} */ (event).detail));
details.addEventListener("turn", (event) => turn(/** @type {CustomEvent} */ (event).detail));
details.addEventListener("shut", writeUrl);
pair.element.addEventListener("close", () => { compared = []; writeUrl(); });
window.addEventListener("hashchange", readUrl);
new IntersectionObserver(([seen]) => { if (seen.isIntersecting && !more.hidden) next(); }, { rootMargin: "600px" }).observe(more);

const refresh = later(async () => { await showQueue(); await catchUp(); }, 150);
socket.addEventListener("message", (event) => {
  const { type, data } = /** @type {CustomEvent} */ (event).detail;
  if (type !== "status") return;
  if (data.deleted === "all") renew();
  else for (const id of data.deleted ?? []) drop(id);
  refresh();
});

/** @param {number} offset @param {number} limit */
async function page(offset, limit) {
  const status = SHOWN[/** @type {keyof typeof SHOWN} */ (state.value)] ?? SHOWN.all;
  const query = new URLSearchParams({ ...queryOf(search.value), status, limit: String(limit), offset: String(offset) });
  return call(`/api/jobs?${query}`);
}

/** The list from its beginning. */
async function renew() {
  asked += 1;
  isStale = false;
  const mine = asked;
  try {
    const found = await page(0, PAGE);
    if (mine !== asked) return;
    jobs = found.jobs;
    replace(tiles, jobs.map(tile));
    tellCount(found.pagination);
  } catch (error) {
    count.textContent = told(error);
  }
}

/** The next page below what there is. */
async function next() {
  if (more.disabled || isStale) return;
  more.disabled = true;
  const mine = asked;
  try {
    const found = await page(jobs.length, PAGE);
    if (mine === asked && !isStale) {
      const known = new Set(jobs.map(({ id }) => id));
      const fresh = found.jobs.filter((/** @type {Job} */ job) => !known.has(job.id));
      jobs.push(...fresh);
      tiles.append(...fresh.map(tile));
      tellCount(found.pagination);
    }
  } catch (error) {
    count.textContent = told(error);
  }
  more.disabled = false;
}

/** What has ended since, put before the rest. */
async function catchUp() {
  const mine = asked;
  const found = isStale ? null : await page(0, PAGE).catch(() => null);
  if (!found || isStale || mine !== asked) return;
  const known = new Set(jobs.map(({ id }) => id));
  const fresh = found.jobs.filter((/** @type {Job} */ job) => !known.has(job.id));
  jobs.unshift(...fresh);
  tiles.prepend(...fresh.map(tile));
  tellCount(found.pagination);
}

/** @param {{ total: number }} pagination */
function tellCount({ total }) {
  const isFiltered = search.value.trim() !== "" || state.value !== "all";
  const isEmpty = total === 0 && !isFiltered;
  const told = total ? t(total === 1 ? "count.one" : "count", { total }) : t(isEmpty ? "nothingYet" : "nothingFound");
  replace(count, told, isEmpty && " ", isEmpty && h("a", { href: "/run", text: t("makeFirst") }));
  more.hidden = jobs.length >= total;
}

/** @param {Job} job */
function tile(job) {
  const output = job.preview_output;
  const label = `${t(`state.${job.status}`)}, ${moment(job.create_time)}`;
  const inner = output?.mediaType === "images"
    ? h("img", { src: viewUrl(output, true), alt: `${output.filename}, ${label}`, loading: "lazy" })
    : h("span", { class: `plate ${job.status}` }, h("strong", { text: t(`state.${job.status}`) }),
      h("span", { text: moment(job.create_time) }));
  const element = h("button", { type: "button", class: "thumb", "data-job": job.id, on: { click: () => { if (!selection.turned(job.id, element)) open(job.id); } } }, inner,
    job.outputs_count > 1 && h("span", { class: "badge", text: String(job.outputs_count) }));
  selection.mark(job.id, element);
  return element;
}

/** The pictures of some jobs; a job that is gone has none. @param {string[]} ids */
async function picturesOf(ids) {
  const found = await Promise.all(ids.map((id) => call(`/jobs/${encodeURIComponent(id)}`).catch(() => ({ outputs: {} }))));
  return found.map(({ outputs }) => pictures(outputs));
}

/** Two jobs' first pictures beside each other. @param {string[]} ids */
async function compare(ids) {
  const [one, other] = (await picturesOf(ids)).map(([first]) => first && { url: viewUrl(first), name: first.filename });
  if (!one || !other) {
    selection.tell(t("cannotCompare"));
    return;
  }
  compared = ids;
  writeUrl();
  await pair.open(one, other);
}

/** Every picture of these jobs in one archive. @param {string[]} ids */
async function download(ids) {
  const files = (await picturesOf(ids)).flat();
  const entries = [];
  for (const file of files) {
    const response = await fetch(viewUrl(file));
    if (!response.ok) throw new Error(`${file.filename}: ${response.statusText}`);
    entries.push({ name: file.filename, data: new Uint8Array(await response.arrayBuffer()) });
  }
  if (entries.length) keepFile(zip(entries), "sigmagraph.zip");
  selection.tell(t("archived", { count: entries.length }));
}

/** Forget these jobs. @param {string[]} ids */
async function remove(ids) {
  await call("/history", { body: { delete: ids } });
  ids.forEach(forget);
}

/** @param {string} id */
function open(id) {
  details.open(id);
  writeUrl();
}

/** The job before or after the one that is open. @param {number} by */
function turn(by) {
  const place = jobs.findIndex(({ id }) => id === details.jobId);
  const other = jobs[place + by];
  if (place >= 0 && other) open(other.id);
}

/** A job that is gone, here or in another tab. @param {string} id */
function drop(id) {
  jobs = jobs.filter((job) => job.id !== id);
  tiles.querySelector(`[data-job="${CSS.escape(id)}"]`)?.remove();
  selection.drop(id);
  if (details.jobId === id) details.element.close();
}

/** @param {string} id */
function forget(id) {
  drop(id);
  say(t("deleted"));
  refresh();
}

function writeUrl() {
  const said = new URLSearchParams();
  if (search.value.trim()) said.set("text", search.value.trim());
  if (state.value !== "all") said.set("state", state.value);
  if (details.jobId) said.set("job", details.jobId);
  if (compared.length) said.set("compare", compared.join(","));
  history.replaceState(null, "", `${location.pathname}${[...said].length ? `#${said}` : ""}`);
}

function readUrl() {
  const said = new URLSearchParams(location.hash.slice(1));
  search.value = said.get("text") ?? "";
  filters.follow();
  state.value = said.get("state") ?? "all";
  if (state.selectedIndex < 0) state.value = "all";
  const id = said.get("job");
  if (id) details.open(id);
  else details.element.close();
  const ids = said.get("compare")?.split(",") ?? [];
  if (ids.length === 2) compare(ids);
  else pair.element.close();
}

/** What runs and what waits. */
async function showQueue() {
  const found = await call("/api/jobs?status=in_progress,pending&limit=200&sort_order=asc").catch(() => null);
  if (!found) return;
  const running = found.jobs.filter((/** @type {Job} */ job) => job.status === "in_progress");
  waiting = found.jobs.filter((/** @type {Job} */ job) => job.status === "pending");
  waiting.sort((one, other) => one.priority - other.priority || one.create_time - other.create_time);
  for (const [id, stream] of followed) {
    if (running.some((/** @type {Job} */ job) => job.id === id)) continue;
    stream.close();
    followed.delete(id);
  }
  const shown = [...running, ...waiting];
  for (const line of [...queue.children]) {
    if (!shown.some(({ id, status }) => line.getAttribute("data-line") === `${id} ${status}`)) line.remove();
  }
  shown.forEach((job, place) => {
    const name = `${job.id} ${job.status}`;
    const line = queue.querySelector(`[data-line="${CSS.escape(name)}"]`) ?? queueLine(job, name);
    if (queue.children[place] !== line) queue.insertBefore(line, queue.children[place] ?? null);
  });
  now.hidden = shown.length === 0;
}

/** @param {Job} job @param {string} name */
function queueLine(job, name) {
  const isRunning = job.status === "in_progress";
  const text = h("span", { class: "muted", text: isRunning ? t("started") : t("waiting") });
  const bar = isRunning ? h("progress", { max: 1, "aria-label": t("progress") }) : null;
  const cancel = h("button", { type: "button", class: "quiet", text: t("cancel"), on: { click: async () => {
    cancel.disabled = true;
    await call(`/jobs/${encodeURIComponent(job.id)}/cancel`, { method: "POST" }).catch((error) => say(told(error)));
    refresh();
  } } });
  const what = h("span", { class: "what", dir: "auto", text: job.id.slice(0, 8) });
  call(`/jobs/${encodeURIComponent(job.id)}`).then(async ({ workflow }) => {
    const { promptText } = await import("./live.js");
    what.textContent = promptText(workflow.prompt) || job.id.slice(0, 8);
  }, () => {});
  if (bar) follow(job, bar, text);
  const moves = isRunning ? null : h("span", { class: "row" }, [["earlier", "↑", -1], ["later", "↓", 1]].map(([label, sign, by]) =>
    h("button", { type: "button", class: "quiet", "aria-label": t(`${label}`), title: t(`${label}`), text: sign,
      on: { click: () => move(job.id, Number(by)) } })));
  return h("li", { "data-line": name }, h("span", { class: `dot ${job.status}` }), what, bar, text, moves, cancel);
}

/** One place earlier or later among one's waiting jobs. @param {string} id @param {number} by */
async function move(id, by) {
  const rest = waiting.filter((job) => job.id !== id);
  const place = waiting.findIndex((job) => job.id === id) + by;
  if (place < 0 || place > rest.length) return;
  const before = rest[place - 1]?.priority, after = rest[place]?.priority;
  const number = before === undefined ? after - 1 : after === undefined ? before + 1 : (before + after) / 2;
  await call(`/jobs/${encodeURIComponent(id)}/place`, { body: { number } }).catch((error) => say(told(error)));
  await showQueue();
  const line = [...queue.children].find((each) => each.getAttribute("data-line")?.startsWith(id));
  line?.querySelector("button")?.focus();
}

/** A running job's steps, from its log. @param {Job} job @param {HTMLProgressElement} bar @param {HTMLElement} text */
function follow(job, bar, text) {
  const stream = new EventSource(`/jobs/${encodeURIComponent(job.id)}/events`);
  followed.set(job.id, stream);
  let began = 0;
  stream.addEventListener("NodeStarted", () => { began = performance.now(); });
  stream.addEventListener("NodeProgress", ({ data }) => {
    const { value, maximum } = JSON.parse(data);
    bar.max = maximum;
    bar.value = value;
    const left = value ? duration(((performance.now() - began) / value) * (maximum - value)) : "";
    text.textContent = t("step", { value, max: maximum, left });
  });
  stream.addEventListener("Ended", () => { stream.close(); refresh(); });
  stream.onerror = () => stream.close();
}

readUrl();
await Promise.all([renew(), showQueue()]);
