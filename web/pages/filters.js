// What the gallery is searched for: words, and fields such as `sampler:euler`, typed into the search or set beside it.
import { call } from "./api.js";
import { freshId, h } from "./dom.js";
import { allFacts } from "./explain.js";
import { t } from "./strings.js";

export const FIELDS = /** @type {const} */ (["sampler", "schedule", "model", "seed", "after", "before"]);
/** @typedef {(typeof FIELDS)[number]} FieldName */
const TOKEN = /(^|\s)(sampler|schedule|model|seed|after|before):("[^"]*"|\S+)/gi;
const DAY = /^(\d{4})-(\d\d?)-(\d\d?)$/;

/**
 * The words and the fields of what was typed; a field that comes twice counts as it was said last.
 * @param {string} text
 * @returns {{ words: string, fields: Partial<Record<FieldName, string>> }}
 */
export function parsed(text) {
  /** @type {Partial<Record<FieldName, string>>} */
  const fields = {};
  const words = text.replace(TOKEN, (_, before, name, value) => {
    fields[/** @type {FieldName} */ (name.toLowerCase())] = value.replaceAll('"', "");
    return before;
  });
  return { words: words.replace(/\s+/g, " ").trim(), fields };
}

/**
 * The same as one line of text.
 * @param {string} words @param {Partial<Record<FieldName, string>>} fields
 */
export function written(words, fields) {
  const tokens = FIELDS.filter((name) => fields[name]).map((name) => `${name}:${/\s/.test(fields[name] ?? "") ? `"${fields[name]}"` : fields[name]}`);
  return [words, ...tokens].filter(Boolean).join(" ");
}

/**
 * The search as the server takes it; throws where a day is none.
 * @param {string} text
 */
export function queryOf(text) {
  const { words, fields } = parsed(text);
  /** @type {Record<string, string>} */
  const query = words ? { text: words } : {};
  for (const [name, value] of Object.entries(fields)) {
    if (name === "after" || name === "before") query[`created_${name}`] = String(dayAt(value));
    else query[name] = value;
  }
  return query;
}

/** A value as its field takes it: half a day, while it is typed, is none. @param {FieldName} name @param {string} value */
function shownIn(name, value) {
  if (name !== "after" && name !== "before") return value;
  const [, year, month, day] = DAY.exec(value) ?? [];
  return year ? `${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}` : "";
}

/** The first moment of a day here, milliseconds since 1970. @param {string} text */
function dayAt(text) {
  const [, year, month, day] = (DAY.exec(text) ?? []).map(Number);
  const moment = new Date(year, month - 1, day);
  if (moment.getMonth() !== month - 1 || moment.getTime() < 0) throw new Error(t("noDay", { text }));
  return moment.getTime();
}

/** Fields beside the search that write into it, and follow it. */
export class Filters {
  /** @param {HTMLInputElement} search */
  constructor(search) {
    this.search = search;
    this.inputs = Object.fromEntries(FIELDS.map((name) => [name, this.input(name)]));
    this.element = h("details", { class: "more filters", on: { toggle: () => this.offer() } }, h("summary", { text: t("filters") }),
      h("div", { class: "grid" }, FIELDS.map((name) => h("label", { class: "field" }, h("span", { text: t(`filter.${name}`) }), this.inputs[name]))));
    search.addEventListener("input", () => this.follow());
  }

  /** @param {FieldName} name */
  input(name) {
    const isDay = name === "after" || name === "before";
    return h("input", { type: isDay ? "date" : "text", autocomplete: "off", inputmode: name === "seed" ? "numeric" : null, on: { input: () => this.write() } });
  }

  /** What stands in the fields, into the search. */
  write() {
    const fields = Object.fromEntries(FIELDS.map((name) => [name, this.inputs[name].value.trim().replaceAll('"', "")]));
    this.search.value = written(parsed(this.search.value).words, fields);
    this.search.dispatchEvent(new CustomEvent("input"));
  }

  /** What stands in the search, into the fields; the one that is being written in is left alone. */
  follow() {
    const { fields } = parsed(this.search.value);
    for (const name of FIELDS) if (this.inputs[name] !== document.activeElement) this.inputs[name].value = shownIn(name, fields[name] ?? "");
    if (Object.keys(fields).length) this.element.open = true;
  }

  /** Names to choose from, once somebody looks. */
  async offer() {
    if (!this.element.open || this.isOffered) return;
    this.isOffered = true;
    const { samplers, schedules } = await allFacts();
    const models = await Promise.all(["checkpoints", "diffusion_models"].map((folder) => call(`/models/${folder}`).catch(() => [])));
    const lists = { sampler: Object.keys(samplers), schedule: Object.keys(schedules), model: models.flat() };
    for (const [name, choices] of Object.entries(lists)) {
      const id = freshId();
      this.element.append(h("datalist", { id }, choices.map((value) => h("option", { value }))));
      this.inputs[name].setAttribute("list", id);
    }
  }
}
