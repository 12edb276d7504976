/** Numbers, durations and times, for people. */

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** Three significant digits, without trailing zeros. */
function digits(value) {
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return String(Number(value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3)));
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  for (const [factor, prefix] of PREFIXES) if (Math.abs(value) >= factor) return digits(value / factor) + "\u202f" + prefix;
  return digits(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [factor, prefix] of PREFIXES)
    if (Math.abs(value) >= factor) return `${digits(value / factor)}\u202f${prefix}B`;
  return `${digits(value)}\u202fB`;
}

export const rate = (value) => (value === null || value === undefined ? "–" : `${count(value)}/s`);
export const byteRate = (value) => (value === null || value === undefined ? "–" : `${bytes(value)}/s`);

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0\u202fs";
  if (value < 1e-3) return `${digits(value * 1e6)}\u202fµs`;
  if (value < 1) return `${digits(value * 1e3)}\u202fms`;
  return `${digits(value)}\u202fs`;
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${digits(value * 100)}\u202f%`);

/** How long ago, or for how long, in its two largest units. */
export function span(value) {
  const all = Math.max(0, Math.floor(value));
  const parts = [[Math.floor(all / 86400), "d"], [Math.floor(all / 3600) % 24, "h"], [Math.floor(all / 60) % 60, "min"], [all % 60, "s"]];
  const first = parts.findIndex(([number]) => number > 0);
  if (first < 0) return "0\u202fs";
  return parts.slice(first, first + 2).filter(([number], i) => i === 0 || number > 0)
    .map(([number, unit]) => `${number}\u202f${unit}`).join(" ");
}

/** The time of day; with the date if that is another than that of `now`. Both in seconds since 1970. */
export function time(at, now) {
  const then = new Date(at * 1000);
  const clock = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const isToday = then.toDateString() === new Date(now * 1000).toDateString();
  return isToday ? clock : `${then.toLocaleDateString()} ${clock}`;
}

/** A field of the configuration: with the unit that it has. */
export function setting({ value, unit }) {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (typeof value !== "number") return String(value);
  if (unit === "seconds") return seconds(value);
  if (unit === "bytes") return `${value.toLocaleString("en")}\u202fB`;
  return value.toLocaleString("en");
}
