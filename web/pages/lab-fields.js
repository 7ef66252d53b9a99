// Fields of the lab that hold several values: names as chips, numbers as a line of text.
import { freshId, h, replace } from "./dom.js";
import { t } from "./strings.js";

/** @typedef {{ element: HTMLElement, values: () => string[], set: (values: string[]) => void, problem: () => string }} ListField */

/**
 * Names, each taken away by a press on it, and a list to take more from.
 * @param {string} label @param {() => void} changed
 * @returns {ListField & { offer: (names: string[]) => void }}
 */
export function namesField(label, changed) {
  const id = freshId();
  /** @type {string[]} */
  let chosen = [];
  const chips = h("div", { class: "row wrap chips" });
  const more = h("select", { id });
  const show = () => replace(chips, chosen.map((name) => h("button", {
    type: "button", class: "quiet chip", "aria-label": t("lab.remove", { name }), on: { click: () => set(chosen.filter((each) => each !== name), true) },
  }, name, h("span", { "aria-hidden": "true", text: " ×" }))));
  const set = (/** @type {string[]} */ names, isByHand = false) => {
    chosen = [...new Set(names)];
    show();
    if (!isByHand) return;
    changed();
    more.focus();
  };
  more.addEventListener("change", () => {
    if (more.value) set([...chosen, more.value], true);
    more.value = "";
  });
  const offer = (/** @type {string[]} */ names) => replace(more, h("option", { value: "", text: t("lab.add") }), names.map((name) => h("option", { value: name, text: name })));
  offer([]);
  return {
    element: h("div", { class: "field" }, h("label", { for: id, text: label }), chips, more),
    values: () => chosen,
    set,
    offer,
    problem: () => (chosen.length ? "" : t("lab.none")),
  };
}

/**
 * Numbers, separated by commas or spaces.
 * @param {string} label @param {RegExp} form of one number @param {() => void} changed
 * @returns {ListField}
 */
export function numbersField(label, form, changed) {
  const id = freshId();
  const error = h("p", { class: "error", id: `${id}e`, hidden: true });
  const input = h("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", "aria-describedby": `${id}e` });
  const values = () => [...new Set(input.value.split(/[\s,;]+/).filter(Boolean))];
  const problem = () => (values().length && values().every((each) => form.test(each)) ? "" : t("lab.numbers"));
  input.addEventListener("input", () => {
    error.textContent = problem();
    error.hidden = !error.textContent;
    input.setAttribute("aria-invalid", String(!error.hidden));
    if (error.hidden) changed();
  });
  return {
    element: h("div", { class: "field" }, h("label", { for: id, text: label }), input, error),
    values,
    set: (given) => { input.value = given.join(", "); },
    problem,
  };
}
