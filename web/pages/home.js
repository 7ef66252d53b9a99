// The home page: a prompt and its picture at once, what was made lately, and the way to everything else.
import { ApiError, Socket, call, viewUrl } from "./api.js";
import { h, later, replace } from "./dom.js";
import { Form } from "./form.js";
import { Stage, takeUp } from "./live.js";
import { start, told } from "./shell.js";
import { t } from "./strings.js";

const RECENT = 12;
const main = start("nav.home");
const left = takeUp();
const stage = new Stage(new Socket(left?.clientId));
if (left) stage.follow(left.jobId);
const problem = h("div", { class: "notice error", role: "alert", hidden: true });
const body = h("div");
const go = h("button", { class: "primary", disabled: true, text: t("make") });
const more = h("a", { class: "button quiet", href: "/run", text: t("allSettings") });
const recent = h("div", { class: "tiles" });
const lately = h("section", { hidden: true }, h("h2", { text: t("recent") }), recent);
const cards = h("div", { class: "cards" });
/** @type {Form | null} */
let form = null;
const remember = later(() => { // all but the seed, which a URL would hold
  const held = form?.fields.filter(({ field }) => field.lock).map(({ nodeId, name }) => `${nodeId}.${name}`) ?? [];
  const said = new URLSearchParams(form?.changes().filter(([place]) => !held.includes(place)));
  history.replaceState(null, "", `${location.pathname}${location.search}${[...said].length ? `#${said}` : ""}`);
}, 250);

main.append(
  h("section", { class: "hero" },
    h("form", { class: "panel", novalidate: true, on: { submit } },
      h("h1", { text: t("welcome") }), body, problem, h("div", { class: "go" }, go, more)),
    stage.element),
  lately,
  h("section", null, h("h2", { text: t("whatElse") }), cards),
);
stage.addEventListener("ended", showRecent);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) /** @type {HTMLButtonElement} */ (go).click();
});

/** The prompt of the default workflow; a model that is not here gives way to one that is. */
async function prepare() {
  try {
    const inspected = await call("/inspect", { body: { template: "txt2img" } });
    form = new Form(inspected, link);
    for (const { name, field } of form.fields) {
      const choices = inspected.nodes.CheckpointLoaderSimple?.input?.required?.ckpt_name?.[0];
      if (name === "ckpt_name" && choices?.length && !choices.includes(field.value())) field.set(choices[0]);
      if (name === "ckpt_name" && choices?.length === 0) tell([t("noModel")]);
    }
    form.apply(new URLSearchParams(location.hash.slice(1)));
    const prompt = form.prompts.firstElementChild;
    replace(body, prompt);
    go.disabled = false;
    link();
  } catch (error) {
    tell([told(error)]);
  }
}

/** The run page with what stands here, which this page's own URL has too: a reload, or the way back, loses nothing. */
function link() {
  if (!form) return;
  more.href = `/run#${new URLSearchParams([["template", "txt2img"], ...form.changes()])}`;
  remember();
}

/** @param {string[]} lines */
function tell(lines) {
  replace(problem, lines.map((text) => h("p", { dir: "auto", text })));
  problem.hidden = lines.length === 0;
}

/** @param {Event} event */
async function submit(event) {
  event.preventDefault();
  if (!form) return;
  tell([]);
  form.beforeRun();
  try {
    const answer = await stage.run(form.prompt(), null);
    tell(form.showErrors(answer.node_errors));
  } catch (error) {
    const others = form.showErrors(error instanceof ApiError ? error.body?.node_errors : {});
    tell([told(error), ...others]);
  }
}

async function showRecent() {
  const { jobs } = await call(`/api/jobs?status=completed&limit=${RECENT}`).catch(() => ({ jobs: [] }));
  const shown = jobs.filter((/** @type {any} */ job) => job.preview_output?.mediaType === "images");
  lately.hidden = shown.length === 0;
  replace(recent, shown.map((/** @type {any} */ job) =>
    h("a", { class: "thumb", href: `/gallery#job=${encodeURIComponent(job.id)}` },
      h("img", { src: viewUrl(job.preview_output, true), alt: job.preview_output.filename, loading: "lazy" }))));
}

async function showCards() {
  const { system } = await call("/system_stats").catch(() => ({ system: {} }));
  const made = [
    ["/run", "nav.run", "card.run"],
    ["/gallery", "nav.gallery", "card.gallery"],
    system.has_editor ? ["/", "nav.editor", "card.editor"] : null,
    ["/api-docs", "nav.api", "card.api"],
    ["/lab", "nav.lab", "card.lab"],
    ["/system", "nav.system", "card.system"],
  ];
  replace(cards, made.map((each) => each && h("a", { class: "card", href: each[0] },
    h("strong", { text: t(each[1]) }), h("span", { text: t(each[2]) }))),
    system.has_editor === false && h("div", { class: "card" }, h("strong", { text: t("nav.editor") }),
      h("span", { text: t("card.noEditor") }), h("code", { text: "pip install 'sigmagraph[editor]'" })));
}

await Promise.all([prepare(), showRecent(), showCards()]);
