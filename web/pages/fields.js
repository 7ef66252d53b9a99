// One field of a form, made from the declaration of a node's input.
import { viewUrl } from "./api.js";
import { freshId, h, replace } from "./dom.js";
import { wholeNumber } from "./exact.js";
import { told } from "./shell.js";
import { NODES, known, t } from "./strings.js";

/**
 * @typedef {object} Declared  one input as `/object_info` describes it
 * @property {string} kind INT, FLOAT, STRING, BOOLEAN or COMBO
 * @property {any[]} choices
 * @property {Record<string, any>} options
 */
/**
 * @typedef {object} Field
 * @property {HTMLElement} element the whole row
 * @property {() => any} value what is sent
 * @property {() => string} text the value for the URL
 * @property {(text: string) => void} set from the URL
 * @property {() => string} problem why it cannot be sent; empty where it can
 * @property {(message: string) => void} show an error at the field; empty takes it away
 * @property {(...words: (Node | string)[]) => void} note what is said of the value that stands there
 * @property {HTMLElement} input what takes the focus
 * @property {(() => void)} [beforeRun]
 * @property {(() => void)} [lock]
 */

const SEEDS = ["seed", "noise_seed"];
const MOST_STOPS = 1000;
const SHOWN_TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"]; // what every browser reads

/**
 * How an input is declared, or null for one that is a link.
 * @param {any} info
 * @returns {Declared | null}
 */
export function declaredAs(info) {
  if (!Array.isArray(info)) return null;
  const [type, options = {}] = info;
  if (Array.isArray(type)) return { kind: "COMBO", choices: type, options };
  if (type === "COMBO") return { kind: "COMBO", choices: options.options ?? [], options };
  return ["INT", "FLOAT", "STRING", "BOOLEAN"].includes(type) ? { kind: type, choices: [], options } : null;
}

/**
 * The name of an input for people.
 * @param {string} name
 */
export function nameOf(name) {
  const words = name.replaceAll("_", " ");
  return known(`field.${name}`) ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * A field.
 * @param {string} name of the input
 * @param {string} label
 * @param {Declared} declared
 * @param {any} value
 * @param {() => void} changed
 * @returns {Field}
 */
export function makeField(name, label, declared, value, changed) {
  if (declared.kind === "INT" && SEEDS.includes(name)) return seedField(label, declared, value, changed);
  if (declared.kind === "INT" || declared.kind === "FLOAT") return numberField(label, declared, value, changed);
  if (declared.kind === "BOOLEAN") return truthField(label, declared, value, changed);
  if (declared.kind === "COMBO" && declared.options.image_upload) return imageField(label, declared, value, changed);
  if (declared.kind === "COMBO") return choiceField(label, declared, value, changed);
  return textField(label, declared, value, changed);
}

/**
 * The row round an input: label, hint, error.
 * @param {string} label
 * @param {Declared} declared
 * @param {HTMLElement} input
 * @param {HTMLElement} [around] the input with what stands beside it
 */
function row(label, declared, input, around) {
  const id = freshId();
  const hint = declared.options.tooltip ? h("p", { class: "hint", id: `${id}h`, lang: NODES, text: declared.options.tooltip }) : null;
  const error = h("p", { class: "error", id: `${id}e`, hidden: true });
  const said = h("p", { class: "hint", id: `${id}n`, hidden: true });
  input.id = id;
  const element = h("div", { class: "field" }, h("label", { for: id, text: label }), around ?? input, error, said, hint);
  const describe = () => {
    const parts = [error.hidden ? "" : error.id, said.hidden ? "" : said.id, hint?.id].filter(Boolean).join(" ");
    if (parts) input.setAttribute("aria-describedby", parts);
    else input.removeAttribute("aria-describedby");
  };
  const show = (/** @type {string} */ message) => {
    error.textContent = message;
    error.hidden = !message;
    input.setAttribute("aria-invalid", String(Boolean(message)));
    describe();
  };
  const note = (/** @type {(Node | string)[]} */ ...words) => {
    replace(said, words);
    said.hidden = words.length === 0;
    if (hint) hint.hidden = !said.hidden; // what is chosen says more than what may be chosen
    describe();
  };
  describe();
  input.addEventListener("input", () => show(""));
  return { element, show, note, input };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function textField(label, declared, value, changed) {
  const isLong = Boolean(declared.options.multiline);
  const props = { dir: "auto", spellcheck: "false", on: { input: changed } };
  const input = isLong ? h("textarea", { rows: 3, ...props }) : h("input", { type: "text", ...props });
  input.value = String(value ?? "");
  return {
    ...row(label, declared, input),
    value: () => input.value,
    text: () => input.value,
    set: (text) => { input.value = text; },
    problem: () => "",
  };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function truthField(label, declared, value, changed) {
  const input = h("input", { type: "checkbox", on: { change: changed } });
  input.checked = Boolean(value);
  const made = row(label, declared, input);
  made.element.classList.add("truth");
  return {
    ...made,
    value: () => input.checked,
    text: () => String(input.checked),
    set: (text) => { input.checked = text === "true"; },
    problem: () => "",
  };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function choiceField(label, declared, value, changed) {
  const input = h("select", { on: { change: changed } });
  const choices = declared.choices;
  const offer = (/** @type {any} */ wanted) => {
    const isThere = choices.some((each) => String(each) === String(wanted));
    const gone = isThere ? [] : [h("option", { value: String(wanted), text: wanted === "" ? t("nothingChosen") : t("notHere", { value: String(wanted) }) })];
    replace(input, gone, choices.map((each) => h("option", { value: String(each), text: String(each) })));
    input.value = String(wanted);
  };
  offer(value ?? declared.options.default ?? choices[0] ?? "");
  const made = row(label, declared, input);
  input.addEventListener("change", () => made.show(""));
  return {
    ...made,
    value: () => choices.find((each) => String(each) === input.value) ?? input.value,
    text: () => input.value,
    set: offer,
    problem: () => "",
  };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function numberField(label, declared, value, changed) {
  const { min, max, step = declared.kind === "INT" ? 1 : "any" } = declared.options;
  const isSlid = Number.isFinite((max - min) / step) && (max - min) / step <= MOST_STOPS;
  const input = h("input", { type: "number", inputmode: "decimal", min, max, step: "any", on: { input: changed } });
  input.value = String(value ?? declared.options.default ?? 0);
  const slider = isSlid
    ? h("input", { type: "range", min, max, step, tabindex: "-1", "aria-hidden": "true", on: { input: () => {
      input.value = slider?.value ?? "";
      made.show("");
      changed();
    } } })
    : null;
  const follow = () => { if (slider) slider.value = input.value; };
  input.addEventListener("input", follow);
  follow();
  const made = row(label, declared, input, slider ? h("div", { class: "slid" }, slider, input) : undefined);
  return {
    ...made,
    value: () => Number(input.value),
    text: () => input.value,
    set: (text) => { input.value = text; follow(); },
    problem: () => {
      const number = Number(input.value);
      const isWhole = declared.kind !== "INT" || Number.isInteger(number);
      const isWithin = !(number < min) && !(number > max);
      if (input.value.trim() !== "" && Number.isFinite(number) && isWhole && isWithin) return "";
      return t(declared.kind === "INT" ? "wholeWithin" : "numberWithin", { min: String(min), max: String(max) });
    },
  };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function seedField(label, declared, value, changed) {
  const input = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", on: { input: changed } });
  input.value = String(value ?? 0);
  const roll = () => {
    input.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    made.show("");
    changed();
  };
  let isLocked = false;
  const lock = h("button", { type: "button", class: "quiet", on: { click: () => hold(!isLocked) } });
  const hold = (/** @type {boolean} */ wanted) => {
    isLocked = wanted;
    lock.setAttribute("aria-pressed", String(wanted));
    lock.textContent = t(wanted ? "locked" : "unlocked");
    lock.title = t(wanted ? "lockedHint" : "unlockedHint");
  };
  hold(false);
  const dice = h("button", { type: "button", class: "quiet", title: t("diceHint"), on: { click: roll }, text: t("dice") });
  input.addEventListener("input", () => hold(true));
  const made = row(label, declared, input, h("div", { class: "seed" }, input, dice, lock));
  return {
    ...made,
    value: () => wholeNumber(input.value) ?? input.value,
    text: () => input.value,
    set: (text) => { input.value = text; hold(true); },
    problem: () => (wholeNumber(input.value) === null ? t("wholeNumber") : ""),
    beforeRun: () => { if (!isLocked) roll(); },
    lock: () => hold(true),
  };
}

/** @param {string} label @param {Declared} declared @param {any} value @param {() => void} changed @returns {Field} */
function imageField(label, declared, value, changed) {
  const made = choiceField(label, declared, value, changed);
  const picture = h("img", { class: "small", alt: "" });
  const paint = h("button", { type: "button", class: "quiet", text: t("paintMask"), on: { click: async () => {
    const { MaskDialog } = await import("./mask.js");
    const dialog = new MaskDialog(made.text());
    dialog.addEventListener("made", (event) => {
      take(/** @type {CustomEvent} */ (event).detail);
      paint.focus();
    });
    await dialog.open();
  } } });
  picture.addEventListener("error", () => { if (made.text()) made.show(t("notAPicture", { name: made.text() })); });
  const show = () => {
    picture.hidden = paint.hidden = !made.text();
    if (made.text()) picture.src = viewUrl({ filename: made.text(), type: "input" }, true);
  };
  const take = (/** @type {string} */ name) => {
    if (!declared.choices.includes(name)) declared.choices.push(name);
    made.set(name);
    made.show("");
    show();
    changed();
  };
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", tabindex: "-1", "aria-hidden": "true" });
  const send = async (/** @type {File | undefined} */ chosen) => {
    if (!chosen) return;
    if (SHOWN_TYPES.includes(chosen.type) && !(await createImageBitmap(chosen).catch(() => null))) {
      made.show(t("notAPicture", { name: chosen.name }));
      file.value = "";
      return;
    }
    const form = new FormData();
    form.append("image", chosen, chosen.name);
    try {
      const response = await fetch("/upload/image", { method: "POST", body: form });
      if (!response.ok) throw new Error(await response.text());
      const { name, subfolder } = await response.json();
      take(subfolder ? `${subfolder}/${name}` : name);
    } catch (error) {
      made.show(told(error));
    }
  };
  file.addEventListener("change", () => send(file.files?.[0]));
  const open = h("button", { type: "button", class: "quiet", text: t("upload"), on: { click: () => file.click() } });
  made.input.addEventListener("change", show);
  made.element.append(h("div", { class: "upload" }, open, paint, picture, file));
  made.element.addEventListener("dragover", (event) => event.preventDefault());
  made.element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    send(event.dataTransfer?.files[0]);
  });
  show();
  return { ...made, set: (text) => { made.set(text); show(); }, problem: () => (made.text() ? "" : t("pictureNeeded")) };
}
