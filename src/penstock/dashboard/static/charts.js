/** A card for each thing that is measured: its latest values, a chart of them, and the same as a table. */

import { byteRate, bytes, count, percent, rate, seconds } from "./format.js";

const KEPT = 900; // seconds
const LEAST = 60; // that a chart shows
const HEIGHT = 124;

/** `series`: name, label, and the colour by its number in board.css; a dash tells apart what no line of its own needs. */
const CARDS = [
  { id: "messages", title: "Messages", format: rate, series: [["messages_sent", "sent", 1], ["messages_received", "received", 2]] },
  { id: "bytes", title: "Bytes of messages", format: byteRate, series: [["bytes_sent", "sent", 1], ["bytes_received", "received", 2]] },
  {
    id: "pool", title: "Connections", format: count, isCount: true,
    series: [["pool_in_use", "in use", 1], ["pool_idle", "idle", 3], ["pool_waiting", "callers waiting", 2], ["pool_max", "most", 4, [4, 4]]],
    facts: ({ pool }) => [["opened", count(pool.opened)], ["failed", count(pool.failed)], ["timeouts", count(pool.timeouts)], ["past the pool", count(pool.plain)]],
  },
  { id: "acquire", title: "Wait for a connection", format: seconds, series: quantiles("acquire") },
  {
    id: "batch", title: "Batches", format: count, isCount: true,
    series: [["batch_size", "messages each", 1], ["batch_pending", "messages pending", 2]],
    facts: ({ batch }) => [["delivered", count(batch.delivered)], ["dropped", count(batch.dropped)], ["pending", bytes(batch.pending_bytes)], ["breaks", count(batch.breaks)]],
    table: ({ flushes }) => ["Flushed because of", ["Reason", "Last minute", "In all"], flushes.map((one) => [one.reason, count(one.minute), count(one.total)])],
  },
  { id: "batch-wait", title: "Wait in a batch", format: seconds, series: quantiles("batch_wait") },
  {
    id: "cache", title: "Cache", format: percent, most: 1,
    series: [["cache_hit_ratio", "hits", 1]],
    facts: ({ cache }) => cache && [["entries", `${count(cache.size)} of ${count(cache.capacity)}`], ["hits", count(cache.hits)], ["misses", count(cache.misses)], ["evicted", count(cache.evictions)]],
  },
  { id: "ping", title: "Ping round trip", format: seconds, series: quantiles("ping") },
  { id: "lag", title: "Event loop lag", format: seconds, series: quantiles("lag") },
];

function quantiles(name) {
  return [[`${name}_p50`, "median", 1], [`${name}_p99`, "99 %", 2]];
}

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** The last value that is known. */
const latest = (column) => column.findLast((value) => value !== null) ?? null;

/** Where a value has no neighbour that a line could lead to. */
function alone(plot, series) {
  const column = plot.data[series];
  return column.flatMap((value, i) => (value !== null && column[i - 1] == null && column[i + 1] == null ? [i] : []));
}

const colour = (number) => getComputedStyle(document.documentElement).getPropertyValue(`--series-${number}`).trim();
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** What is known, in columns: for a quarter of an hour. */
export class Points {
  columns = { at: [] };

  /** Begin anew. */
  reset(columns) {
    this.columns = columns;
  }

  add(columns) {
    if (!columns.at.length) return;
    const oldest = columns.at.at(-1) - KEPT - 1;
    let gone = this.columns.at.findIndex((at) => at >= oldest);
    if (gone < 0) gone = this.columns.at.length;
    for (const name of Object.keys(columns)) this.columns[name] = (this.columns[name] ?? []).slice(gone).concat(columns[name]);
  }

  /** The columns of some series in the last seconds. */
  within(window, names) {
    const { at } = this.columns;
    const first = at.findIndex((one) => one >= at.at(-1) - window);
    return [at, ...names.map((name) => this.columns[name] ?? [])].map((column) => column.slice(Math.max(0, first)));
  }
}

export class Card {
  #about;
  #names;
  #values = new Map(); // by the name of a series: where its value is shown
  #rows = new Map();
  #plot = null;
  #size = null;
  #holder = element("div", { className: "chart", ariaHidden: "true" });
  #empty = element("p", { className: "empty", textContent: "Nothing measured in this time" });
  #facts = element("dl", { className: "facts" });
  #extra = element("div", { className: "extra" });

  constructor(about) {
    this.#about = about;
    this.#names = about.series.map(([name]) => name);
    const title = element("h3", { id: `card-${about.id}`, textContent: about.title });
    const values = element("dl", { className: "values" });
    const rows = element("tbody");
    for (const [name, label, number, dash] of about.series) {
      const value = element("dd", { textContent: "–" });
      value.dataset.series = name;
      this.#values.set(name, value);
      const swatch = element("i", { className: `swatch series-${number}${dash ? " dashed" : ""}` });
      values.append(element("div", {}, element("dt", {}, swatch, label), value));
      const cells = [1, 2, 3, 4].map(() => element("td", { textContent: "–" }));
      this.#rows.set(name, cells);
      rows.append(element("tr", {}, element("th", { scope: "row", textContent: label }), ...cells));
    }
    const heads = ["", "Latest", "Least", "Mean", "Most"].map((text) => element("th", { scope: "col", textContent: text }));
    const caption = element("caption", { textContent: `${about.title} in the time shown` });
    const table = element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), rows);
    const summary = element("summary", { textContent: "Table" });
    summary.append(element("span", { className: "hidden", textContent: `: ${about.title}` }));
    this.#holder.append(this.#empty);
    this.element = element("article", { className: "card" }, title, values, this.#holder, this.#facts, element("details", {}, summary, table, this.#extra));
    this.element.setAttribute("aria-labelledby", title.id);
    new ResizeObserver(() => this.#fit()).observe(this.#holder);
  }

  #fit() {
    const { clientWidth: width } = this.#holder;
    if (this.#plot && width && width !== this.#size) this.#plot.setSize({ width: (this.#size = width), height: HEIGHT });
  }

  show(points, window, state) {
    const data = points.within(window, this.#names);
    const isEmpty = !data.slice(1).some((column) => column.some((value) => value !== null));
    this.#empty.hidden = !isEmpty;
    this.#holder.classList.toggle("bare", isEmpty);
    this.#names.forEach((name, i) => this.#tabulate(name, data[i + 1]));
    this.#showFacts(state);
    if (!data[0].length) return;
    this.#plot ??= this.#draw(data);
    this.#plot.batch(() => {
      const end = data[0].at(-1);
      this.#plot.setData(data, false);
      const begin = Math.max(end - window, Math.min(data[0][0], end - LEAST)); // no empty space for what is not known
      this.#plot.setScale("x", { min: begin, max: end });
    });
  }

  #tabulate(name, column) {
    const known = column.filter((value) => value !== null);
    const mean = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
    const ends = known.length ? [Math.min(...known), mean, Math.max(...known)] : [null, null, null];
    [latest(column), ...ends].forEach((value, i) => (this.#rows.get(name)[i].textContent = this.#about.format(value)));
    if (this.#plot?.cursor.idx == null) this.#values.get(name).textContent = this.#about.format(latest(column));
  }

  #showFacts(state) {
    const facts = this.#about.facts?.(state) ?? [];
    this.#facts.replaceChildren(...facts.map(([label, text]) => element("div", {}, element("dt", { textContent: label }), element("dd", { textContent: text }))));
    if (!this.#about.table) return;
    const [caption, heads, rows] = this.#about.table(state);
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })));
    const body = rows.map(([first, ...rest]) => element("tr", {}, element("th", { scope: "row", textContent: first }), ...rest.map((text) => element("td", { textContent: text }))));
    this.#extra.replaceChildren(element("table", {}, element("caption", { textContent: caption }), element("thead", {}, head), element("tbody", {}, ...body)));
  }

  /** Show the values at the cursor, or the latest. */
  #point(plot) {
    const at = plot.cursor.idx;
    this.#names.forEach((name, i) => {
      const column = plot.data[i + 1];
      this.#values.get(name).textContent = this.#about.format(at == null ? latest(column) : column[at]);
    });
  }

  #draw(data) {
    const { format, most, series, isCount } = this.#about;
    const axis = { stroke: () => ink("muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: () => ink("grid"), width: 1 };
    this.#size = this.#holder.clientWidth;
    return new uPlot(
      {
        width: this.#size,
        height: HEIGHT,
        legend: { show: false },
        padding: [8, 4, 0, 0],
        cursor: { y: false, sync: { key: "board" }, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, most ?? (high > 0 ? high * 1.15 : 1)] } },
        axes: [
          { ...axis, grid: { show: false }, space: 70, size: 22, values: "{HH}:{mm}:{ss}" },
          { ...axis, grid, space: 28, size: 58, incrs: isCount ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7] : undefined, values: (_, splits) => splits.map(format) },
        ],
        series: [{}, ...series.map(([, label, number, dash]) => ({ label, stroke: () => colour(number), width: dash ? 1 : 1.75, dash, points: { show: true, size: 4, fill: () => colour(number), filter: alone } }))],
        hooks: { setCursor: [(plot) => this.#point(plot)] },
      },
      data,
      this.#holder,
    );
  }

  /** Colours have changed. */
  redraw() {
    this.#plot?.redraw(false, true);
  }
}

export const cards = () => CARDS.map((about) => new Card(about));
