// Files in one archive, uncompressed: pictures are compressed already. APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.

/** @typedef {{ name: string, data: Uint8Array<ArrayBuffer> }} Entry */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});
const UTF8_NAMES = 0x0800;
const FIRST_OF_JANUARY_1980 = 0x21;

/** CRC-32 (ISO 3309). @param {Uint8Array} data */
function crc32(data) {
  let value = 0xffffffff;
  for (const byte of data) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Little-endian numbers of 2 or 4 bytes. @param {...[2 | 4, number]} fields */
function packed(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return view.buffer;
}

/**
 * The archive; of two files with one name the later is numbered.
 * @param {Entry[]} entries
 * @returns {Blob}
 */
export function zip(entries) {
  /** @type {BlobPart[]} */
  const files = [];
  /** @type {BlobPart[]} */
  const directory = [];
  const taken = new Set();
  let place = 0;
  let length = 0;
  for (const { name, data } of entries) {
    const written = new TextEncoder().encode(freeName(name, taken));
    /** @type {[2 | 4, number][]} */
    const facts = [[2, 20], [2, UTF8_NAMES], [2, 0], [2, 0], [2, FIRST_OF_JANUARY_1980], [4, crc32(data)],
      [4, data.length], [4, data.length], [2, written.length], [2, 0]];
    files.push(packed([4, 0x04034b50], ...facts), written, data);
    directory.push(packed([4, 0x02014b50], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, place]), written);
    place += 30 + written.length + data.length;
    length += 46 + written.length;
  }
  const count = entries.length;
  const end = packed([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, length], [4, place], [2, 0]);
  return new Blob([...files, ...directory, end], { type: "application/zip" });
}

/** @param {string} name @param {Set<string>} taken */
function freeName(name, taken) {
  let free = name;
  for (let count = 1; taken.has(free); count += 1) free = name.replace(/(\.[^.]*)?$/, (end) => ` (${count})${end}`);
  taken.add(free);
  return free;
}
