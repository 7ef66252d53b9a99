// A workflow as a form: prompts first, then what is changed most, then the rest, node by node. Where the drawing names
// what it offers in the editor's app mode, that comes first, in its author's order, and all else is the rest.
import { h } from "./dom.js";
import { declaredAs, makeField, nameOf } from "./fields.js";
import { NODES, known, t } from "./strings.js";

/** @typedef {import("./api.js").Inspected} Inspected */
/** @typedef {{ nodeId: string, name: string, first: string, field: import("./fields.js").Field, also: string[][] }} Placed */

const MAIN = ["width", "height", "batch_size", "steps", "cfg", "seed", "noise_seed", "sampler_name", "scheduler"];

/** The form of one workflow. */
export class Form {
  /**
   * @param {Inspected} inspected
   * @param {() => void} changed
   */
  constructor(inspected, changed) {
    this.inspected = inspected;
    /** @type {Placed[]} */
    this.fields = [];
    /** What the author offers, by `NODE.INPUT`. @type {Map<string, { name: string, at: number, targets: string[] }>} */
    this.offered = new Map((inspected.app?.inputs ?? []).map(({ name, targets }, at) => [targets[0], { name, at, targets }]));
    /** Set together with the first of their name. @type {Set<string>} */
    this.followers = new Set([...this.offered.values()].flatMap(({ targets }) => targets.slice(1)));
    /** @type {HTMLElement[]} */
    this.app = [];
    this.prompts = h("div", { class: "prompts" });
    this.main = h("div", { class: "grid" });
    this.rest = h("div", { class: "rest" });
    for (const nodeId of Object.keys(inspected.prompt)) this.addNode(nodeId, changed);
    this.prompts.prepend(...this.app.filter(Boolean));
    const more = h("details", { class: "more" }, h("summary", { text: t("moreSettings") }), this.rest);
    more.hidden = !this.rest.childElementCount;
    this.element = h("div", { class: "form" }, this.prompts, this.main, more);
  }

  /** @param {string} nodeId @param {() => void} changed */
  addNode(nodeId, changed) {
    const node = this.inspected.prompt[nodeId];
    const info = this.inspected.nodes[node.class_type];
    if (!info) return;
    const title = this.titleOf(nodeId);
    const inputs = Object.entries({ ...info.input?.required, ...info.input?.optional });
    const group = h("div", { class: "grid" });
    for (const [name, declaration] of inputs) {
      const declared = declaredAs(declaration);
      const value = node.inputs[name] ?? declared?.options.default;
      const place = `${nodeId}.${name}`;
      if (!declared || Array.isArray(value) || this.followers.has(place)) continue;
      const isPrompt = declared.kind === "STRING" && declared.options.multiline;
      const offer = this.offered.get(place);
      const label = offer ? nameOf(offer.name) : isPrompt ? title : this.labelOf(nodeId, name);
      const field = makeField(name, label, declared, value, changed);
      const isOfNode = offer ? !known(`field.${offer.name}`) : isPrompt || !known(`field.${name}`);
      if (isOfNode) field.element.querySelector("label")?.setAttribute("lang", NODES);
      const also = (offer?.targets.slice(1) ?? []).map((target) => splitPlace(target));
      this.fields.push({ nodeId, name, first: field.text(), field, also });
      const isPicture = declared.kind === "COMBO" && declared.options.image_upload;
      if (offer) this.app[offer.at] = field.element;
      else if (this.offered.size) group.append(field.element);
      else (isPrompt || isPicture ? this.prompts : MAIN.includes(name) ? this.main : group).append(field.element);
    }
    if (group.childElementCount) {
      this.rest.append(h("fieldset", null, h("legend", { dir: "auto", lang: NODES, text: title }), group));
    }
  }

  /** @param {string} nodeId */
  titleOf(nodeId) {
    const node = this.inspected.prompt[nodeId];
    return node?._meta?.title || this.inspected.nodes[node?.class_type]?.display_name || node?.class_type || nodeId;
  }

  /** The input's name, with the node's title where several nodes have one like it. @param {string} nodeId @param {string} name */
  labelOf(nodeId, name) {
    const { prompt, nodes } = this.inspected;
    const having = Object.values(prompt).filter(({ class_type, inputs }) => {
      const input = nodes[class_type]?.input ?? {};
      return (input.required?.[name] || input.optional?.[name]) && !Array.isArray(inputs[name]);
    });
    return MAIN.includes(name) && having.length > 1 ? `${nameOf(name)} · ${this.titleOf(nodeId)}` : nameOf(name);
  }

  /** What is to run. @returns {import("./api.js").Prompt} */
  prompt() {
    const made = structuredClone(this.inspected.prompt);
    for (const { nodeId, name, field, also } of this.fields) {
      for (const [id, input] of [[nodeId, name], ...also]) made[id].inputs[input] = field.value();
    }
    return made;
  }

  /** What differs from the workflow as it came, for the URL. */
  changes() {
    return this.fields
      .filter(({ field, first }) => field.text() !== first)
      .map(({ nodeId, name, field }) => /** @type {[string, string]} */ ([`${nodeId}.${name}`, field.text()]));
  }

  /** Every setting but prompts, pictures and seeds, for a preset. */
  values() {
    return this.fields
      .filter(({ field }) => field.input.tagName !== "TEXTAREA" && !field.lock && !field.element.querySelector(".upload"))
      .map(({ nodeId, name, field }) => /** @type {[string, string]} */ ([`${nodeId}.${name}`, field.text()]));
  }

  /** Put values of a URL in their fields; names nobody knows are left out. @param {URLSearchParams} values */
  apply(values) {
    for (const { nodeId, name, field } of this.fields) {
      const text = values.get(`${nodeId}.${name}`);
      if (text !== null) field.set(text);
    }
  }

  /** New seeds where they are not held. */
  beforeRun() {
    for (const { field } of this.fields) field.beforeRun?.();
  }

  /** Keep every seed. */
  lock() {
    for (const { field } of this.fields) field.lock?.();
  }

  /** Whether everything can be sent; what cannot says so at its field. */
  check() {
    const problems = this.fields.map(({ field }) => {
      const problem = field.problem();
      field.show(problem);
      return problem ? field : null;
    });
    this.focus(problems.find((field) => field !== null));
    return problems.every((field) => field === null);
  }

  /**
   * The server's errors at their fields; gives back those that belong to no field.
   * @param {Record<string, any>} nodeErrors
   * @returns {string[]}
   */
  showErrors(nodeErrors) {
    /** @type {string[]} */
    const others = [];
    let first;
    for (const [nodeId, { errors }] of Object.entries(nodeErrors ?? {})) {
      for (const error of errors ?? []) {
        const name = error.extra_info?.input_name;
        const placed = this.fields.find((each) => each.nodeId === nodeId && each.name === name);
        const said = error.details ? `${error.message}: ${error.details}` : error.message;
        if (placed) placed.field.show(said);
        else others.push(`${this.titleOf(nodeId)}: ${said}`);
        first ??= placed?.field;
      }
    }
    this.focus(first);
    return others;
  }

  /** @param {import("./fields.js").Field | null | undefined} field */
  focus(field) {
    if (!field) return;
    field.element.closest("details")?.setAttribute("open", "");
    field.input.focus();
  }
}

/** `NODE.INPUT` in its two parts; an input's own name may have dots, a node's id has none. @param {string} place */
function splitPlace(place) {
  const at = place.indexOf(".");
  return [place.slice(0, at), place.slice(at + 1)];
}
