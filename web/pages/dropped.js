// Files that people drop on a page, or choose: pictures that carry a workflow, and workflow files.
import { call } from "./api.js";
import { h } from "./dom.js";
import { readExact } from "./exact.js";
import { told } from "./shell.js";
import { t } from "./strings.js";

/**
 * What the server finds in a file. Throws an error whose message is for people.
 * @param {File} dropped
 * @returns {Promise<import("./api.js").Inspected>}
 */
export async function inspectFile(dropped) {
  try {
    const isJson = dropped.name.endsWith(".json") || dropped.type === "application/json";
    if (!dropped.size || (!isJson && dropped.type.startsWith("text/"))) throw new Error(t("noWorkflow"));
    const workflow = isJson ? readExact(await dropped.text()) : null;
    if (isJson && !isFilled(workflow)) throw new Error(t("noWorkflow"));
    return await call("/inspect", { body: isJson ? { workflow } : dropped });
  } catch (error) {
    const reason = error instanceof SyntaxError ? t("noJson") : told(error);
    throw new Error(t("cannotOpenFile", { name: dropped.name, reason }));
  }
}

/** Whether JSON is an object with something in it, as every workflow is. @param {any} read */
function isFilled(read) {
  return typeof read === "object" && read !== null && !Array.isArray(read) && Object.keys(read).length > 0;
}

/**
 * Have files dropped anywhere on the page, and those chosen by the button that is given back, opened.
 * @param {(file: File) => Promise<void>} open
 * @returns {HTMLElement[]} the button, and the input behind it
 */
export function fileDoor(open) {
  const file = h("input", { type: "file", accept: "image/*,.json", class: "unseen", tabindex: "-1", "aria-hidden": "true", on: { change: async () => {
    const chosen = file.files?.[0];
    if (chosen) await open(chosen);
    file.value = "";
  } } });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const dropped = event.dataTransfer?.files[0];
    if (dropped) open(dropped);
  });
  return [h("button", { type: "button", class: "quiet", text: t("openFile"), title: t("openFileHint"), on: { click: () => file.click() } }), file];
}
