// What each sampler and schedule is and what it is good for: a line at its field, and all of them in a dialog.
import { call } from "./api.js";
import { h, replace } from "./dom.js";
import { known, t } from "./strings.js";

/**
 * @typedef {object} Facts  of one name, as `GET /samplers` tells them
 * @property {string} summary
 * @property {string} source
 * @property {number} [order]
 * @property {number} [evaluations]
 * @property {boolean} [is_stochastic]
 * @property {boolean} [is_adaptive]
 * @property {boolean} [needs_uncond]
 */
/** @typedef {Record<string, Facts>} Table */
/** @type {Record<string, "samplers" | "schedules">} */
const KINDS = { sampler_name: "samplers", scheduler: "schedules" };
/** @type {Promise<{ samplers: Table, schedules: Table }> | null} */
let asked = null;

/** Both tables, asked for once; empty where they cannot be had. */
export function allFacts() {
  asked ??= call("/samplers").catch(() => ({ samplers: {}, schedules: {} }));
  return asked;
}

/** Order, evaluations and noise; of a schedule nothing. @param {Facts} facts */
function figures({ order, evaluations, is_stochastic, is_adaptive }) {
  if (evaluations === undefined) return "";
  return [order ? t("explain.order", { order }) : "",
    is_adaptive ? t("explain.adaptive") : t(evaluations === 1 ? "explain.one" : "explain.several", { count: evaluations }),
    t(is_stochastic ? "explain.noise" : "explain.noNoise")].filter(Boolean).join(" · ");
}

/** What it is good for, by what is declared of it: the rules of docs/advice.md. @param {string} name @param {Facts} facts */
export function goodFor(name, facts) {
  const { order, evaluations } = facts;
  if (evaluations === undefined) return known(`schedule.${name}`) ?? "";
  if (facts.needs_uncond) return t("good.uncond");
  if (facts.is_adaptive) return t("good.adaptive");
  if (facts.is_stochastic) return t(order ? "good.noise" : "good.fresh");
  if (evaluations > 2) return t("good.reference", { count: evaluations });
  if (evaluations === 2) return t("good.two");
  return t((order ?? 0) > 1 ? "good.multistep" : "good.first");
}

/**
 * Have a field say what is chosen, and offer the dialog.
 * @param {string} input its name
 * @param {import("./fields.js").Field} field
 */
export async function explain(input, field) {
  const kind = KINDS[input];
  if (!kind || !(field.input instanceof HTMLSelectElement)) return;
  const table = (await allFacts())[kind];
  const all = h("button", { type: "button", class: "link", text: t(`explain.all.${kind}`), on: { click: () => choose(kind, table, field) } });
  const show = () => {
    const name = field.text().split("@")[0];
    const facts = table[name];
    field.note(...(facts ? [[figures(facts), goodFor(name, facts) || facts.summary].filter(Boolean).join(". "), " "] : []), all);
  };
  field.input.addEventListener("change", show);
  show();
}

/** @param {"samplers" | "schedules"} kind @param {Table} table @param {import("./fields.js").Field} field */
function choose(kind, table, field) {
  const select = /** @type {HTMLSelectElement} */ (field.input);
  const offered = [...select.options].map(({ value }) => value).filter((name) => name.split("@")[0] in table);
  const dialog = h("dialog", { class: "sheet", "aria-label": t(`explain.all.${kind}`), on: { close: () => { dialog.remove(); select.focus(); } } });
  const take = (/** @type {string} */ name) => {
    field.set(name);
    select.dispatchEvent(new Event("change"));
    dialog.close();
  };
  const list = h("ul", { class: "explained" });
  const show = (/** @type {string} */ words) => replace(list, offered.filter((name) => said(name).toLowerCase().includes(words.toLowerCase())).map((name) => {
    const facts = table[name.split("@")[0]];
    return h("li", null, h("button", { type: "button", class: "quiet", "aria-pressed": String(name === field.text()), on: { click: () => take(name) } },
      h("strong", { text: name }), h("span", { class: "muted", text: figures(facts) }), h("span", { text: goodFor(name.split("@")[0], facts) }),
      h("span", { class: "muted", lang: "en", text: [facts.summary, facts.source].filter(Boolean).join(" ").replaceAll("`", "") })));
  }));
  const said = (/** @type {string} */ name) => [name, figures(table[name.split("@")[0]]), goodFor(name.split("@")[0], table[name.split("@")[0]]), table[name.split("@")[0]].summary].join(" ");
  const filter = h("input", { type: "search", placeholder: t("search"), "aria-label": t("search"), on: { input: () => show(filter.value) } });
  const shut = h("button", { type: "button", class: "quiet shut", "aria-label": t("close"), text: "×", on: { click: () => dialog.close() } });
  dialog.append(h("div", { class: "row spread" }, h("h2", { text: t(`explain.all.${kind}`) }), shut), h("div", { class: "panel" }, filter, list));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  show("");
  document.body.append(dialog);
  dialog.showModal();
}
