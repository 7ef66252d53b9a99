// Where a job came from and what was made of it: by what its request says, and by whose requests name it or its pictures.
import { call, pictures, viewUrl } from "./api.js";
import { h } from "./dom.js";
import { t } from "./strings.js";

/** @typedef {import("./api.js").JobDetail} JobDetail */
/** @typedef {import("./api.js").FileRecord} FileRecord */
const ANNOTATED = /^(.*?)(?: \[(input|output|temp)\])?$/;
const MOST = 12;

/**
 * The family of a job as a part of its page; nothing where it has none.
 * @param {JobDetail} job
 * @returns {Promise<HTMLElement | null>}
 */
export async function lineage(job) {
  const from = job.workflow.extra_data?.made_from ?? {};
  const [parent, children] = await Promise.all([parentOf(from), childrenOf(job)]);
  const rows = [
    group(t(from.how === "replay" ? "lineage.replay" : "lineage.change"), parent ? [parent] : []),
    group(t("lineage.loads"), loaded(job).map(picture)),
    group(t("lineage.children"), children),
  ].filter((row) => row !== null);
  return rows.length ? h("section", { class: "lineage", "aria-label": t("lineage") }, h("h3", { text: t("lineage") }), rows) : null;
}

/** @param {string} title @param {HTMLElement[]} members */
function group(title, members) {
  return members.length ? h("div", null, h("p", { class: "muted", text: title }), h("div", { class: "strip" }, members)) : null;
}

/** @param {Record<string, string>} from */
async function parentOf({ job_id: id, image, name }) {
  if (id) {
    const path = encodeURIComponent(id);
    const isThere = Object.keys(await call(`/history/${path}`)).length > 0; // a job that is gone is no error here
    const job = isThere ? await call(`/jobs/${path}`) : null;
    return job ? tile(job) : h("span", { class: "muted", text: t("lineage.gone") });
  }
  return image || name ? h("span", { dir: "auto", text: image ?? name }) : null;
}

/** Jobs whose requests name this job, or load a picture of it. @param {JobDetail} job */
async function childrenOf(job) {
  const files = pictures(job.outputs).filter(({ type }) => type === "output").slice(0, 4);
  const names = [job.id, ...files.map(({ filename, subfolder }) => `${subfolder ? `${subfolder}/` : ""}${filename} [output]`)];
  const found = await Promise.all(names.map((text) =>
    call(`/jobs?${new URLSearchParams({ text, limit: String(MOST), status: "completed" })}`).catch(() => ({ jobs: [] }))));
  const others = new Map(found.flatMap(({ jobs }) => jobs).map((/** @type {any} */ other) => [other.id, other]));
  others.delete(job.id);
  return [...others.values()].slice(0, MOST).map(tile);
}

/** A job as a small picture that leads to it. @param {import("./api.js").Job} job */
function tile(job) {
  const output = job.preview_output;
  const shown = output?.mediaType === "images" ? h("img", { src: viewUrl(output, true), alt: output.filename, loading: "lazy" })
    : h("span", { class: "plate", text: t(`state.${job.status}`) });
  const said = new URLSearchParams(location.hash.slice(1)); // the search stays as it is
  said.set("job", job.id);
  return h("a", { class: "thumb", href: `/gallery#${said}` }, shown);
}

/** The pictures that nodes of a job load. @param {JobDetail} job @returns {FileRecord[]} */
function loaded(job) {
  const names = Object.values(job.workflow.prompt).filter(({ class_type }) => class_type.startsWith("LoadImage"))
    .map(({ inputs }) => inputs?.image).filter((name) => typeof name === "string" && name !== "");
  return [...new Set(names)].map((name) => {
    const [, path, type = "input"] = /** @type {RegExpExecArray} */ (ANNOTATED.exec(name));
    const at = path.lastIndexOf("/");
    return { filename: path.slice(at + 1), subfolder: path.slice(0, Math.max(at, 0)), type };
  });
}

/** @param {FileRecord} file */
function picture(file) {
  return h("a", { class: "thumb", href: viewUrl(file), target: "_blank", rel: "noopener", title: file.filename },
    h("img", { src: viewUrl(file, true), alt: file.filename, loading: "lazy" }));
}
