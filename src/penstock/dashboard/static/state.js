/** Everything but the charts: the verdict, alerts, modes, and the configuration. */

import { count, setting, span, time } from "./format.js";

export const $ = (id) => document.getElementById(id);
const SIGNS = { ok: "✓", info: "i", warning: "!", critical: "✕", unknown: "?" };
const RANKS = { critical: 0, warning: 1, info: 2 };

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** Change what is shown only where it differs, so that nobody who reads or listens is disturbed. */
export function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

const shown = new Map();

/** Whether something differs from what it was when this was asked last. */
function changed(id, value) {
  const text = JSON.stringify(value);
  const isOther = shown.get(id) !== text;
  shown.set(id, text);
  return isOther;
}

const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const ranked = (alerts) => [...alerts].sort((a, b) => (RANKS[a.severity] ?? 3) - (RANKS[b.severity] ?? 3) || a.since - b.since);

/** Stages that left the way they were configured to be used, and since when. */
function stepped({ urls, transitions }) {
  const found = urls.flatMap(({ stages }) => Object.entries(stages).map(([stage, one]) => ({ stage, ...one })));
  const away = found.filter(({ mode, reason }) => mode !== "optimized" && reason !== "configured");
  const since = away.map((one) => one.since ?? transitions.at(-1)?.at).filter((at) => at != null);
  return { stages: [...new Set(away.map(({ stage }) => stage))], since: since.length ? Math.min(...since) : null };
}

/** What to see first: how bad it is, in a word, and since when. */
export function verdict(state, began) {
  const firing = ranked(state.alerts.filter((one) => one.state === "firing"));
  if (firing.length) {
    const level = firing[0].severity in RANKS ? firing[0].severity : "warning";
    const names = [...new Set(firing.map((one) => one.name))];
    const since = Math.min(...firing.map((one) => one.fired_at));
    return { level, word: `${plural(firing.length, "alert")} firing: ${names.join(", ")}`, since };
  }
  const { stages, since } = stepped(state);
  if (stages.length) return { level: "info", word: `Nothing is firing. Not in use for some URLs: ${stages.join(", ")}`, since };
  const pending = state.alerts.filter((one) => one.state === "pending");
  if (pending.length) return { level: "info", word: `Nothing is firing; ${plural(pending.length, "alert")} pending`, since: Math.min(...pending.map((one) => one.since)) };
  const ends = state.alerts.map((one) => one.resolved_at).filter((at) => at != null);
  return { level: "ok", word: "All is well", since: ends.length ? Math.max(...ends) : began };
}

export function showVerdict({ level, word, since }, now) {
  $("verdict").dataset.level = level;
  setText("sign", SIGNS[level]);
  setText("word", word);
  setText("since", since == null ? "" : `since ${time(since, now)}, for ${span(now - since)}`);
  document.title = level === "ok" ? "penstock: well" : `${SIGNS[level]} ${word}`;
}

// Alerts

let known = new Map(); // the states of alerts, to tell what has changed

const keyOf = (alert) => JSON.stringify([alert.name, alert.severity, alert.labels]);

function announce(alerts, isFirst) {
  const states = new Map(alerts.map((alert) => [keyOf(alert), alert]));
  const said = [...states].filter(([key, { state }]) => state !== "pending" && state !== known.get(key)?.state);
  known = states;
  if (!isFirst && said.length) setText("announcement", said.map(([, one]) => `${one.name} is ${one.state}. ${one.summary}.`).join(" "));
}

const told = (state) => ({ firing: "fired_at", pending: "since", resolved: "resolved_at" })[state];

/** A row, and how it is told the value and the time. */
function alertRow(alert) {
  const labels = Object.entries(alert.labels).map(([name, value]) => `${name}=${value}`).join(", ");
  const [value, since, duration] = [element("p", { className: "quiet number" }), element("span"), element("span")];
  const name = element("h3", {}, alert.name, ...(labels ? [element("span", { className: "labels", textContent: labels })] : []));
  const row = element("li", {},
    element("p", { className: "severity", textContent: alert.severity }),
    element("div", { className: "what" }, name, element("p", { textContent: alert.summary }), value),
    element("p", { className: "when" }, element("b", { textContent: alert.state }), since, element("br"), duration));
  row.dataset.severity = alert.severity;
  row.dataset.state = alert.state;
  row.tell = (latest, now) => {
    const at = latest[told(latest.state)];
    value.textContent = `now ${Number(latest.value.toPrecision(3))}; rule: ${latest.rule}`;
    since.textContent = ` since ${time(at, now)},`;
    duration.textContent = ` for ${span(now - at)}`;
  };
  return row;
}

/** Rows stay as long as they are about the same alerts: nobody who reads or selects one is disturbed. */
function showRows(id, alerts, now) {
  const isOther = changed(id, alerts.map((alert) => [keyOf(alert), alert.state, alert.summary]));
  if (isOther) $(id).replaceChildren(...alerts.map(alertRow));
  [...$(id).children].forEach((row, i) => row.tell(alerts[i], now));
}

export function showAlerts(alerts, now, isFirst) {
  announce(alerts, isFirst);
  const active = [...ranked(alerts.filter((one) => one.state === "firing")), ...ranked(alerts.filter((one) => one.state === "pending"))];
  const resolved = alerts.filter((one) => one.state === "resolved").sort((a, b) => b.resolved_at - a.resolved_at);
  $("no-alerts").hidden = active.length > 0;
  showRows("active-alerts", active, now);
  $("resolved").hidden = !resolved.length;
  setText("resolved-summary", `${resolved.length} resolved in the last 15 minutes`);
  showRows("resolved-alerts", resolved, now);
}

// Stages

function mode({ mode: name, reason, since }, now) {
  const cell = element("td", {}, element("span", { className: `mode ${name}`, textContent: name }));
  if (reason !== "configured" || name !== "optimized") {
    const when = since == null ? reason : `${reason}, ${time(since, now)}`;
    cell.append(element("span", { className: "reason", textContent: when }));
  }
  return cell;
}

export function showStages(state, stages, now) {
  const { urls, more_urls, speedups, failures, transitions } = state;
  if (!changed("stages", [urls, more_urls, speedups, failures, transitions])) return;
  if ($("stage-names").children.length === 1)
    $("stage-names").append(...stages.map((stage) => element("th", { scope: "col", textContent: stage })));
  $("no-urls").hidden = urls.length > 0;
  const rows = urls.map(({ url, stages: modes }) =>
    element("tr", {}, element("th", { scope: "row", textContent: url }), ...stages.map((stage) => mode(modes[stage], now))));
  if (more_urls) rows.push(element("tr", {}, element("td", { colSpan: stages.length + 1, textContent: `and ${plural(more_urls, "URL")} more` })));
  $("urls").replaceChildren(...rows);
  const sum = (label, text) => element("tr", {}, element("th", { scope: "row", textContent: label }), ...stages.map((stage) => element("td", { textContent: text(stage) })));
  $("stage-sums").replaceChildren(
    sum("Gain, plain way = 1", (stage) => (speedups[stage] == null ? "not measured" : `× ${count(speedups[stage])}`)),
    sum("Operations past it after a failure", (stage) => count(failures[stage])));
  setText("transitions-summary", transitions.length ? `Changes of mode: the latest ${transitions.length}` : "Changes of mode: none");
  $("transition-rows").replaceChildren(...transitions.map((one) =>
    element("tr", {}, ...[time(one.at, now), one.stage, one.to, one.reason, one.url].map((text) => element("td", { textContent: text })))));
}

// Configuration

export function showConfig(sections) {
  $("config").replaceChildren(...sections.map(({ name, fields }) => {
    const changed = fields.filter((field) => !field.default).length;
    const rows = fields.map((field) => {
      const row = element("tr", { className: field.default ? "" : "changed" },
        element("th", { scope: "row", textContent: field.name }), element("td", { textContent: setting(field) }));
      if (!field.default) row.lastChild.append(element("span", { className: "mark", textContent: "set" }));
      return row;
    });
    const summary = element("summary", {}, name, ...(changed ? [element("span", { className: "mark", textContent: `${changed} set` })] : []));
    return element("details", {}, summary, element("table", {}, element("caption", { className: "hidden", textContent: `Configuration: ${name}` }), element("tbody", {}, ...rows)));
  }));
}
