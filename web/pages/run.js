// The run page: a workflow as a form, what comes of it beside it, and all of it in the URL's fragment.
import { ApiError, Socket, call } from "./api.js";
import { h, later, replace } from "./dom.js";
import { fileDoor, inspectFile } from "./dropped.js";
import { pack, unpack } from "./exact.js";
import { Cost } from "./cost.js";
import { explain } from "./explain.js";
import { Form } from "./form.js";
import { Stage, takeUp } from "./live.js";
import { Presets } from "./presets.js";
import { say, start, told } from "./shell.js";
import { NODES, t } from "./strings.js";

const DEFAULT = "txt2img";
const LONGEST_URL = 250_000; // 10,000 characters of any script in two prompts; of nine places each, as a URL writes them
const SOURCES = ["template", "name", "job", "w"];
/** @typedef {{ kind: string, value: string }} Source */

const main = start("nav.run");
const left = takeUp(); // the job that ran here when this tab left the page
const socket = new Socket(left?.clientId);
const stage = new Stage(socket);
const place = h("div", { class: "source" });
const problem = h("div", { class: "notice error", role: "alert", hidden: true });
const body = h("div");
const go = h("button", { class: "primary", disabled: true, text: t("make") });
const presets = new Presets(() => shown?.values() ?? [], (values) => { shown?.apply(new URLSearchParams(values)); remember(); });
const lab = h("a", { class: "button quiet", href: "/lab", text: t("lab.compare") });
const cost = new Cost();
const form = h("form", { novalidate: true, class: "panel", on: { submit } }, place, presets.element, problem, body,
  h("div", { class: "go" }, cost.element, go, lab));
const picker = h("select", { "aria-label": t("workflow") });
/** @type {Form | null} */
let shown = null;
/** @type {Source} */
let source = { kind: "template", value: DEFAULT };
let written = "";

main.append(h("h1", { class: "unseen", text: t("nav.run") }), h("div", { class: "run" }, form, stage.element));
main.classList.add("wide");
const [opener, file] = fileDoor(drop);
place.append(
  h("label", { class: "field" }, h("span", { text: t("workflow") }), picker),
  opener, h("button", { type: "button", class: "quiet", text: t("save"), on: { click: save } }), file);
picker.addEventListener("change", () => {
  const [kind, ...rest] = picker.value.split(":");
  if (rest.length) load({ kind, value: rest.join(":") });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
window.addEventListener("hashchange", () => { if (location.hash.slice(1) !== written) open(); });
stage.addEventListener("ended", () => { if (shown) cost.ask(shown, true); });
const remember = later(writeUrl, 250);

/** What the URL says, or the default workflow. */
async function open() {
  const said = new URLSearchParams(location.hash.slice(1));
  const kind = SOURCES.find((each) => said.has(each));
  await load(kind ? { kind, value: said.get(kind) ?? "" } : { kind: "template", value: DEFAULT }, said);
}

/** @param {Source} wanted @param {URLSearchParams} [values] */
async function load(wanted, values) {
  try {
    const asked = wanted.kind === "w" ? { workflow: await unpack(wanted.value) }
      : { [wanted.kind === "job" ? "job_id" : wanted.kind]: wanted.value };
    show(await call("/inspect", { body: asked }), wanted, values);
  } catch (error) {
    if (!shown) source = wanted;
    pick();
    complain([t("cannotOpen", { reason: told(error) })]);
  }
}

/**
 * @param {import("./api.js").Inspected} inspected
 * @param {Source} from
 * @param {URLSearchParams} [values]
 */
function show(inspected, from, values) {
  source = from;
  shown = new Form(inspected, () => remember());
  if (from.kind === "job" || from.kind === "w") shown.lock();
  if (values) shown.apply(values);
  for (const { name, field } of shown.fields) explain(name, field);
  replace(body, shown.element);
  const missing = Object.entries(inspected.unknown).map(([name, near]) =>
    near ? t("unknownNear", { name, near }) : t("unknown", { name }));
  complain([...missing, ...inspected.warnings], missing.length === 0);
  const offers = Object.entries(inspected.unknown).filter(([, near]) => near !== null);
  if (offers.length) {
    problem.append(h("p", { class: "row wrap" }, offers.map(([name, near]) => h("button", {
      type: "button", class: "quiet", dir: "auto", text: t("useInstead", { name, near: String(near) }), on: { click: () => exchange(name, String(near)) } }))));
  }
  go.disabled = missing.length > 0;
  pick();
  presets.element.hidden = !["template", "name"].includes(from.kind);
  if (!presets.element.hidden) presets.show(`${from.kind}:${from.value}`);
  writeUrl();
}

/** Another class in the place of one that is not here; values and links stay where the names are alike. @param {string} name @param {string} near */
async function exchange(name, near) {
  if (!shown) return;
  const prompt = shown.prompt();
  for (const node of Object.values(prompt)) if (node.class_type === name) node.class_type = near;
  await load({ kind: "w", value: await pack(prompt) });
}

/** The form's state as the URL; a workflow too long for one is left out. */
function writeUrl() {
  if (!shown) return;
  cost.ask(shown);
  const said = new URLSearchParams([[source.kind, source.value], ...shown.changes()]);
  const text = String(said);
  if (text.length > LONGEST_URL) return;
  written = text;
  lab.href = `/lab#${text}`;
  history.replaceState(null, "", `#${text}`);
}

/** @param {string[]} lines @param {boolean} [isMild] */
function complain(lines, isMild = false) {
  replace(problem, lines.map((line) => h("p", { dir: "auto", text: line })));
  problem.hidden = lines.length === 0;
  problem.classList.toggle("error", !isMild);
}

/** A picture that carries a workflow, or a workflow's file. @param {File} dropped */
async function drop(dropped) {
  try {
    const inspected = await inspectFile(dropped);
    show(inspected, { kind: "w", value: await pack(inspected.prompt) });
    say(t("opened", { name: dropped.name }));
  } catch (error) {
    complain([told(error)]);
  }
}

/** @param {Event} event */
async function submit(event) {
  event.preventDefault();
  if (!shown || go.disabled) return;
  complain([]);
  shown.beforeRun();
  if (!shown.check()) return;
  go.disabled = true;
  try {
    const isSame = shown.changes().length === 0;
    const from = source.kind === "job" ? { how: "change", job_id: source.value } : null;
    const answer = await stage.run(shown.prompt(), isSame ? shown.inspected.document : null, from);
    complain(shown.showErrors(answer.node_errors));
    if (matchMedia("(max-width: 60rem)").matches) stage.element.scrollIntoView({ block: "start" });
  } catch (error) {
    const others = shown.showErrors(error instanceof ApiError ? error.body?.node_errors : {});
    const isPlaced = error instanceof ApiError && Object.keys(error.body?.node_errors ?? {}).length > 0;
    complain(isPlaced ? others : [told(error)]);
  }
  go.disabled = false;
}

/** Keep the workflow with its values under a name. */
async function save() {
  if (!shown) return;
  const name = prompt(t("saveAs"), source.kind === "name" ? source.value : "");
  if (!name) return;
  try {
    await call(`/api/workflows/${encodeURIComponent(name)}`, { body: { workflow: shown.prompt() } });
    await list();
    await load({ kind: "name", value: name });
    say(t("saved", { name }));
  } catch (error) {
    complain([told(error)]);
  }
}

/** The workflows there are. */
async function list() {
  const [groups, saved] = await Promise.all([
    call("/templates/index.json").catch(() => []),
    call("/workflows").catch(() => ({ workflows: [] })),
  ]);
  const templates = groups.flatMap((/** @type {any} */ each) => each.templates);
  const options = (/** @type {any[]} */ rows, /** @type {string} */ kind) => rows.map((each) =>
    h("option", { value: `${kind}:${each.name}`, lang: kind === "template" ? NODES : null, text: each.title ?? each.name }));
  replace(picker, h("option", { value: "", text: t("fromElsewhere"), disabled: true }),
    h("optgroup", { label: t("templates") }, options(templates, "template")),
    saved.workflows.length ? h("optgroup", { label: t("savedOnes") }, options(saved.workflows, "name")) : null);
  pick();
}

/** Have the list say what is shown; nothing where that is none of its own, so that each of them can be chosen. */
function pick() {
  picker.value = `${source.kind}:${source.value}`;
  if (picker.selectedIndex < 0) picker.value = "";
}

await Promise.all([list(), open(), left && stage.follow(left.jobId)]);
