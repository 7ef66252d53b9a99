// The machine: devices, models, caches and times, versions, log.
import { call } from "./api.js";
import { h, replace } from "./dom.js";
import { flameChart } from "./flame.js";
import { duration, size, start, told } from "./shell.js";
import { NODES, known, t } from "./strings.js";

const EVERY_MS = 4000;
const main = start("nav.system");
const devices = h("div", { class: "cards" });
const versions = h("table", { class: "values" });
const models = h("div", { class: "models" });
const needed = h("div", { class: "needs" });
const crew = h("div", { class: "cards" });
const resident = h("table", { class: "wide-table" });
const residents = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("resident"), hidden: true }, resident);
const noneResident = h("p", { class: "muted", text: t("noneResident") });
const cache = h("div");
const times = h("div", { class: "bars" });
const courses = h("div", { class: "flames" });
const keys = h("table", { class: "wide-table" });
const keysPart = h("section", { hidden: true }, h("h2", { text: t("keys") }), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("keys") }, keys));
const log = h("pre", { class: "log", tabindex: "0", "aria-label": t("log"), role: "log" });
const filter = h("input", { type: "search", placeholder: t("logFilter"), "aria-label": t("logFilter"), on: { input: showLog } });
const level = h("select", { "aria-label": t("level"), on: { change: showLog } },
  ["all", "warning", "error"].map((each) => h("option", { value: each, text: t(`level.${each}`) })));
/** @type {string[]} */
let lines = [];

/** @param {string} title @param {...HTMLElement} children */
const part = (title, ...children) => h("section", null, h("h2", { text: t(title) }), ...children);
main.append(h("h1", { text: t("nav.system") }), part("devices", devices), part("resident", noneResident, residents), part("workers", crew),
  part("models", models, needed), part("work", cache, times),
  part("lastJobs", courses), keysPart, part("versions", versions), h("section", null, h("div", { class: "row spread tools" }, h("h2", { text: t("log") }),
    h("div", { class: "row" }, filter, level)), log));

/** @param {any} error */
function refused(error) {
  replace(crew, h("p", { class: "muted", text: error.status === 403 ? t("adminOnly") : told(error) }));
  noneResident.hidden = true;
}

async function showDevices() {
  const { system, devices: found } = await call("/system_stats");
  const memory = [["memory", system.ram_total, system.ram_free]];
  const used = found.map((/** @type {any} */ each) => [each.name, each.vram_total, each.vram_free]);
  replace(devices, [...memory, ...used].map(([name, total, free]) => gauge(name === "memory" ? t("memory") : name, total, free)));
  const rows = [["sigmagraph", system.sigmagraph_version], ["PyTorch", system.pytorch_version],
    ["Python", system.python_version], [t("nav.editor"), system.has_editor ? system.required_frontend_version ?? t("own") : t("absent")],
    [t("speaks"), system.comfyui_version]];
  replace(versions, h("tbody", null, rows.map(([name, value]) => h("tr", null, h("th", { scope: "row", text: name }), h("td", { text: value })))));
}

/** @param {string} name @param {number} total @param {number} free */
function gauge(name, total, free) {
  return h("div", { class: "card" }, h("strong", { text: name }),
    h("meter", { min: 0, max: total, value: total - free, "aria-label": name }),
    h("span", { text: t("used", { used: size(total - free), total: size(total) }) }));
}

async function showModels() {
  const folders = await call("/models");
  const lists = await Promise.all(folders.map((/** @type {string} */ each) => call(`/experiment/models/${each}`).catch(() => [])));
  const isEmpty = lists.every((each) => each.length === 0);
  replace(models, isEmpty && h("p", { text: t("noModel") }), folders.map((/** @type {string} */ folder, /** @type {number} */ i) => lists[i].length > 0 &&
    h("div", null, h("h3", { text: folder }), h("ul", { class: "files" }, lists[i].map((/** @type {any} */ file) =>
      h("li", null, h("span", { text: file.name }), h("span", { class: "muted", text: size(file.size) })))))),
    h("p", { class: "muted" }, t("modelsHint"), " ", h("code", { text: "sigmagraph models" })));
}

/** The files of each template, and the command for those that are missing. */
async function showNeeds() {
  const { workflows } = await call("/needs");
  replace(needed, h("h3", { text: t("needs") }), workflows.map((/** @type {any} */ need) => {
    const missing = need.files.filter((/** @type {any} */ file) => !file.is_here);
    return h("details", { class: "need" },
      h("summary", null, h("span", { class: `dot ${missing.length ? "" : "in_progress"}` }), h("span", { dir: "auto", lang: NODES, text: need.title }),
        h("span", { class: "muted", text: missing.length ? t("needs.missing", { count: missing.length }) : t("needs.whole") })),
      h("ul", { class: "files" }, need.files.map((/** @type {any} */ file) => h("li", null, h("span", { text: file.name }),
        h("span", { class: file.is_here ? "muted" : "error", text: t(file.is_here ? "needs.here" : "needs.gone") })))),
      need.fetch && h("p", null, h("code", { text: need.fetch })),
      missing.length === 0 && h("p", null, h("a", { href: `/run#template=${encodeURIComponent(need.name)}`, text: t("nav.run") })));
  }));
}

/** Workers and their machines, and the networks that are in memory, with what became of each by the memory plan. */
async function showWorkers() {
  const { workers, queued, running } = await call("/workers");
  replace(crew, workers.map((/** @type {any} */ each) => h("div", { class: "card" }, h("strong", { text: [each.name, each.machine].filter(Boolean).join(" · ") }),
    h("span", { text: [t(each.is_ready ? "worker.ready" : "worker.starting"), each.starts > 1 && t("worker.starts", { count: each.starts })].filter(Boolean).join(" · ") }),
    h("span", { text: t("worker.jobs", { count: each.jobs.length }) }),
    each.loads !== undefined && h("span", { text: t("worker.loads", { loads: each.loads, evictions: each.evictions }) }),
    each.memory_limit_bytes && h("span", { text: t("worker.limit", { size: size(each.memory_limit_bytes) }) }),
    each.last_error && h("span", { class: "error", dir: "auto", text: each.last_error }))),
  h("div", { class: "card" }, h("strong", { text: t("queue") }), h("span", { text: t("worker.queue", { running, queued }) })));
  const there = workers.flatMap((/** @type {any} */ each) => (each.resident ?? []).map((/** @type {any} */ network) => ({ ...network, worker: each.name })));
  residents.hidden = there.length === 0;
  noneResident.hidden = there.length > 0;
  const names = ["network", "mode", "precision", "device", "takes"];
  replace(resident, h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col", text: t(`resident.${name}`) })))),
    h("tbody", null, there.map((/** @type {any} */ network) => h("tr", null, h("th", { scope: "row", text: network.network }),
      h("td", { text: [known(`mode.${network.mode}`) ?? network.mode, network.is_in_use && t("resident.busy")].filter(Boolean).join(" · ") }), h("td", { text: network.precision }),
      h("td", { text: network.device }), h("td", { class: "number", text: size(network.bytes) })))));
}

/** A metric's lines: labels and value. @param {string} text @param {string} name */
function metric(text, name) {
  return text.split("\n").filter((line) => line.startsWith(`${name}{`)).map((line) => {
    const end = line.lastIndexOf("}");
    const labels = Object.fromEntries([...line.slice(0, end).matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((each) => [each[1], each[2]]));
    return { labels, value: Number(line.slice(end + 1)) };
  });
}

async function showWork() {
  let text = "";
  try {
    text = await call("/metrics");
  } catch (error) {
    replace(cache, h("p", { class: "muted", text: /** @type {any} */ (error).status === 403 ? t("adminOnly") : told(error) }));
    return;
  }
  const sources = metric(text, "sigmagraph_nodes_total");
  const all = sources.reduce((sum, { value }) => sum + value, 0);
  const hits = all - (sources.find(({ labels }) => labels.source === "executed")?.value ?? 0);
  const ended = metric(text, "sigmagraph_jobs_ended_total").map(({ labels, value }) => `${t(`ended.${labels.state}`)}: ${value}`);
  replace(cache, h("p", { text: all ? t("hits", { share: Math.round((100 * hits) / all), hits, all }) : t("nothingRan") }),
    ended.length > 0 && h("p", { class: "muted", text: ended.join(" · ") }));
  const spent = metric(text, "sigmagraph_node_seconds_total").sort((a, b) => b.value - a.value).slice(0, 8);
  const most = spent[0]?.value ?? 0;
  replace(times, spent.map(({ labels, value }) => h("div", { class: "barline" }, h("span", { lang: NODES, text: labels.class_type }),
    h("meter", { min: 0, max: most || 1, value, "aria-label": labels.class_type }), h("span", { class: "muted", text: duration(value * 1000) }))));
}

async function showCourses() {
  const lines = await flameChart();
  replace(courses, lines.length ? h("p", { class: "muted", text: t("flameHint") }) : h("p", { text: t("nothingRan") }), lines);
}

/** Who may call, and what is left; shown to an administrator, and only where there are keys. */
async function showKeys() {
  const found = (await call("/keys")).keys;
  keysPart.hidden = found.length === 0;
  const names = ["keyName", "credits", "held", "spent", "scopes", "perMinute"];
  replace(keys, h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col", text: t(name) })))),
    h("tbody", null, found.map((/** @type {any} */ each) => h("tr", each.revoked ? { class: "muted" } : null,
      h("th", { scope: "row", dir: "auto", text: `${each.name} (${each.hint}…)${each.revoked ? ` · ${t("revoked")}` : ""}` }),
      [each.credits, each.held, each.spent].map((amount) => h("td", { class: "number", text: amount.toLocaleString() })),
      h("td", { text: each.scopes.join(", ") }), h("td", { class: "number", text: each.requests_per_minute ?? t("usual") })))));
}

async function readLog() {
  const { entries } = await call("/internal/logs/raw");
  lines = entries.map((/** @type {any} */ each) => each.m.trimEnd());
  showLog();
}

function showLog() {
  const wanted = filter.value.toLowerCase();
  const isBad = (/** @type {string} */ line) => level.value === "all" || / (error|critical) /.test(line) || (level.value === "warning" && / warning /.test(line));
  const found = lines.filter((line) => line.toLowerCase().includes(wanted) && isBad(line));
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.textContent = found.join("\n") || t("noLines");
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/** Everything, each part for itself: one that fails leaves the others. */
async function refresh() {
  await Promise.allSettled([showDevices(), showWorkers().catch(refused), showWork(), showCourses(), showKeys(), readLog()]);
}

await Promise.allSettled([refresh(), showModels(), showNeeds()]);
window.setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
