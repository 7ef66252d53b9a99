// Elements made from data. Text is always a text node: nothing here, or in any page, reads a string as markup.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, any>} Props  attributes; `on` holds listeners, `text` the content */

/**
 * One element with its attributes and children; what is null or false is left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [kind, listener] of Object.entries(value)) element.addEventListener(kind, listener);
    else if (name === "text") element.textContent = String(value);
    else if (name === "value") /** @type {any} */ (element).value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * One element of a drawing, as `h` makes those of the page.
 * @param {string} tag
 * @param {Props} props
 * @param {...SVGElement} children
 */
export function drawn(tag, props, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "text") element.textContent = String(value);
    else element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/**
 * Append children.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Put these children in the place of what there was.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function replace(element, ...children) {
  element.replaceChildren();
  fill(element, ...children);
}

let made = 0;

/** An id that no other element of this page has. */
export function freshId() {
  made += 1;
  return `x${made}`;
}

/**
 * Call at most once in this many milliseconds, with the last arguments.
 * @template {any[]} A
 * @param {(...values: A) => void} action
 * @param {number} ms
 * @returns {(...values: A) => void}
 */
export function later(action, ms) {
  /** @type {number | undefined} */
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = window.setTimeout(() => action(...values), ms);
  };
}

/**
 * Have the browser save a file.
 * @param {Blob} file
 * @param {string} name
 */
export function keepFile(file, name) {
  const link = h("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
