// What the last jobs spent their time on, node by node: one line a job, all on one scale.
import { call } from "./api.js";
import { drawn, h } from "./dom.js";
import { duration, moment } from "./shell.js";
import { t } from "./strings.js";

const JOBS = 8;
const COLOURS = 8;
const LEAST = 0.15; // of a hundred: narrower ones are drawn so wide
/** @typedef {{ name: string, from: number, to: number }} Span  seconds since the job was accepted */
/** @typedef {{ id: string, created: number, began: number, ended: number, nodes: Span[] }} Course */

/** The chart; empty where nothing has ended. @returns {Promise<HTMLElement[]>} */
export async function flameChart() {
  const { jobs } = await call(`/api/jobs?status=completed,failed&limit=${JOBS}`);
  const courses = await Promise.all(jobs.map((/** @type {{ id: string }} */ { id }) => courseOf(id).catch(() => null)));
  const shown = /** @type {Course[]} */ (courses.filter((course) => course !== null));
  const longest = Math.max(...shown.map(({ ended }) => ended), 1e-3);
  return shown.map((course) => line(course, longest));
}

/** The stored events of an ended job, as spans. @param {string} id @returns {Promise<Course>} */
async function courseOf(id) {
  const text = await call(`/jobs/${encodeURIComponent(id)}/events`);
  const events = text.split("\n").filter((/** @type {string} */ each) => each.startsWith("data: "))
    .map((/** @type {string} */ each) => JSON.parse(each.slice(6)));
  const created = events[0].at;
  /** @type {Course} */
  const course = { id, created, began: 0, ended: events.at(-1).at - created, nodes: [] };
  /** @type {Map<string, number>} */
  const open = new Map();
  for (const { kind, at, node_id: node, class_type: name } of events) {
    if (kind === "Started") course.began = at - created;
    if (kind === "NodeStarted") open.set(node, at - created);
    if (kind === "NodeFinished" && open.has(node)) {
      course.nodes.push({ name, from: open.get(node) ?? 0, to: at - created });
      open.delete(node);
    }
  }
  return course;
}

/** @param {Course} course @param {number} longest */
function line(course, longest) {
  const share = (/** @type {number} */ seconds) => (100 * seconds) / longest;
  const said = course.nodes.map(({ name, from, to }) => `${name}: ${duration(1000 * (to - from))}`);
  const waited = `${t("waiting")}: ${duration(1000 * course.began)}`;
  const label = `${moment(1000 * course.created)}: ${[waited, ...said].join(", ")}`;
  const bars = [bar({ name: "", from: 0, to: course.began }, waited, "wait", share),
    ...course.nodes.map((span, at) => bar(span, said[at], `c${colourOf(span.name)}`, share))];
  return h("a", { class: "flame", href: `/gallery#job=${encodeURIComponent(course.id)}` },
    h("span", { text: moment(1000 * course.created) }),
    drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...bars),
    h("span", { class: "muted", text: duration(1000 * course.ended) }));
}

/** @param {Span} span @param {string} title @param {string} kind @param {(seconds: number) => number} share */
function bar(span, title, kind, share) {
  const width = Math.max(share(span.to - span.from), LEAST);
  return drawn("rect", { x: share(span.from), y: 0, width, height: 10, class: kind }, drawn("title", { text: title }));
}

/** The same colour for a class each time. @param {string} name */
function colourOf(name) {
  return [...name].reduce((sum, letter) => (31 * sum + (letter.codePointAt(0) ?? 0)) % 65521, 7) % COLOURS;
}
