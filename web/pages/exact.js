// JSON with whole numbers of any size: seeds go up to 2^64 - 1, and a rounded seed is another picture.
import { t } from "./strings.js";

/** @typedef {{ source?: string }} Context */

const raw = /** @type {any} */ (JSON).rawJSON;

/**
 * Read JSON; whole numbers beyond 2^53 become BigInt.
 * @param {string} text
 * @returns {any}
 */
export function readExact(text) {
  return JSON.parse(
    text,
    /** @type {any} */ (
      (/** @type {string} */ _, /** @type {any} */ value, /** @type {Context} */ context) => {
        if (typeof value !== "number" || Number.isSafeInteger(value) || !context?.source) return value;
        return /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
      }
    ),
  );
}

/**
 * Write JSON; BigInt becomes a whole number.
 * @param {any} value
 * @param {number} [indent]
 */
export function writeExact(value, indent) {
  const written = (/** @type {string} */ _, /** @type {any} */ each) =>
    typeof each === "bigint" ? (raw ? raw(each.toString()) : Number(each)) : each;
  return JSON.stringify(value, written, indent);
}

/**
 * Text of a whole number as a number, or as BigInt where a number would round it; null where it is none.
 * @param {string} text
 */
export function wholeNumber(text) {
  if (!/^-?\d{1,30}$/.test(text.trim())) return null;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text.trim());
}

/**
 * JSON as a short text for a URL: deflated, in base64 of the URL alphabet.
 * @param {any} value
 */
export async function pack(value) {
  const stream = new Blob([writeExact(value)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * What `pack` made, read again; throws where it is damaged.
 * @param {string} text
 */
export async function unpack(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return readExact(await new Response(stream).text());
  } catch {
    throw new Error(t("damagedLink")); // what the browser says of it names its own insides
  }
}
