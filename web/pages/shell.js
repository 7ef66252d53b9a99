// What every page has: the bar with its links, language and colours, the banner, and the place that is read aloud.
import { call, signals } from "./api.js";
import { h, replace } from "./dom.js";
import { language, languages, setLanguage, t } from "./strings.js";

const LINKS = [
  ["/home", "nav.home"],
  ["/run", "nav.run"],
  ["/gallery", "nav.gallery"],
  ["/lab", "nav.lab"],
  ["/system", "nav.system"],
  ["/api-docs", "nav.api"],
];

/** @type {string | undefined} the server's, when the page was loaded */
let version;
const spoken = h("p", { class: "unseen", "aria-live": "polite" });
const banner = h("div", { class: "banner", role: "status", hidden: true });

/**
 * Say something to who cannot see it.
 * @param {string} text
 */
export function say(text) {
  spoken.textContent = text;
}

/**
 * Build the bar round the page's `<main>` and give it back.
 * @param {string} title key of the page's title
 */
export function start(title) {
  document.documentElement.lang = language;
  document.title = `${t(title)} · sigmagraph`;
  document.documentElement.style.colorScheme = stored("theme") ?? "light dark";
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  const here = location.pathname === "/" ? "/home" : location.pathname;
  const links = LINKS.map(([path, name]) =>
    h("a", { href: path, "aria-current": path === here ? "page" : null, text: t(name) }));
  const nav = h("nav", { "aria-label": t("nav") }, links);
  document.body.prepend(
    h("a", { class: "skip", href: "#main", text: t("skip") }),
    h("header", { class: "bar" }, h("a", { class: "brand", href: "/home" }, "sigmagraph"), nav, choices()),
    banner,
    spoken,
  );
  main.id = "main";
  main.tabIndex = -1;
  replace(main);
  watchLine();
  addEditor(nav);
  return main;
}

/** The server's version, as far as it answers. @returns {Promise<string | undefined>} */
async function versionThere() {
  return call("/system_stats").then(({ system }) => system.sigmagraph_version, () => undefined);
}

/** The link to the editor, where there is one. @param {HTMLElement} nav */
async function addEditor(nav) {
  const { system } = await call("/system_stats").catch(() => ({ system: {} }));
  version = system.sigmagraph_version;
  document.documentElement.dataset.editor = system.has_editor ? "yes" : "no";
  if (system.has_editor) nav.append(h("a", { href: "/", text: t("nav.editor") }));
}

/** Language and colours. */
function choices() {
  const themes = [["light dark", "theme.auto"], ["light", "theme.light"], ["dark", "theme.dark"]];
  const theme = h("select", { "aria-label": t("theme"), on: { change: () => {
    keep("theme", theme.value);
    document.documentElement.style.colorScheme = theme.value;
  } } }, themes.map(([value, name]) => h("option", { value, text: t(name) })));
  theme.value = stored("theme") ?? "light dark";
  const tongue = h("select", { "aria-label": t("language"), on: { change: () => {
    setLanguage(tongue.value);
    location.reload();
  } } }, Object.entries(languages).map(([value, text]) => h("option", { value, lang: value, text })));
  tongue.value = language;
  return h("div", { class: "choices" }, theme, tongue);
}

/** A banner while the server does not answer, and one for who has to sign in again. */
function watchLine() {
  let isOut = false, isSignedOut = false; // `isOut`: what the banner says matters more than the line
  const show = (/** @type {string} */ text, /** @type {Node | null} */ link = null) => {
    replace(banner, text, link && " ", link);
    banner.hidden = false;
  };
  signals.addEventListener("offline", () => { if (!isOut) show(t("offline")); });
  signals.addEventListener("online", async () => {
    if (!isOut) banner.hidden = true;
    const now = await versionThere();
    if (version && now && now !== version) {
      isOut = true;
      show(t("newVersion", { now, was: version }), h("a", { href: location.href, on: { click: () => location.reload() }, text: t("reload") }));
    }
  });
  signals.addEventListener("signed-in", () => {
    if (!isSignedOut) return;
    isOut = isSignedOut = false;
    banner.hidden = true;
  });
  signals.addEventListener("signed-out", () => {
    isOut = isSignedOut = true;
    show(t("signedOut"), h("a", { href: `/login?next=${location.pathname}`, target: "_blank", text: t("signIn") }));
  });
}

/** @param {string} name */
export function stored(name) {
  try {
    return localStorage.getItem(`sigmagraph.${name}`);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string} value */
export function keep(name, value) {
  try {
    localStorage.setItem(`sigmagraph.${name}`, value);
  } catch {
    // a browser that keeps nothing: the choice lasts as long as the page
  }
}

/**
 * An error as people read it.
 * @param {any} error
 */
export function told(error) {
  return error?.status === 0 ? t("offline") : String(error?.message ?? error);
}

/** @param {number | null | undefined} ms since 1970 */
export function moment(ms) {
  return ms ? new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(ms) : "";
}

/** @param {number} ms */
export function duration(ms) {
  const s = ms / 1000;
  const format = (/** @type {number} */ value, /** @type {string} */ unit) =>
    new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
  return s < 90 ? format(s, "second") : format(s / 60, "minute");
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = bytes > 0 ? Math.min(4, Math.floor(Math.log10(bytes) / 3)) : 0;
  const value = bytes / 1000 ** power;
  return new Intl.NumberFormat(language, { style: "unit", unit: units[power], maximumFractionDigits: value < 10 ? 1 : 0 })
    .format(value);
}
