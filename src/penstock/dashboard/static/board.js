/** The page: connects to the feed, again and again, and shows what it tells. */

import { cards, Points } from "./charts.js";
import { span, time } from "./format.js";
import { connect } from "./penstock.js";
import { $, setText, showAlerts, showConfig, showStages, showVerdict, verdict } from "./state.js";

const PAUSES = [500, 1000, 2000, 5000]; // milliseconds until it connects again; the last serves for ever
const UNKNOWN_TOKEN = 1008;
const STALE = 3; // readings that may be missing

const points = new Points();
const board = cards();
let about = null; // what the first message told
let latest = null; // the latest message
let arrived = 0; // when, on the page's clock
let lost = null; // since when there is no connection, likewise
let seconds = 300;
let isPaused = false;
let isDue = false; // `draw` is going to be called

$("cards").append(...board.map((card) => card.element));

// What the browser keeps, if it may: the token for the tab, the theme for ever

const kept = new Map();
const storeOf = (key) => (key === "token" ? sessionStorage : localStorage);

function keep(key, value) {
  kept.set(key, value);
  try {
    storeOf(key).setItem(key, value);
  } catch {} // it may not: until the page is left, then
}

function recall(key) {
  try {
    return storeOf(key).getItem(key) ?? kept.get(key) ?? null;
  } catch {
    return kept.get(key) ?? null;
  }
}

// The feed

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The token of the address, which leaves it: it is not to be seen on the screen, nor kept in the history. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given === null) return;
  keep("token", given);
  history.replaceState(null, "", location.pathname);
}

async function watch() {
  const url = new URL("feed", document.baseURI.replace(/^http/, "ws"));
  url.hash = "";
  const conn = await connect(url, { reconnectDelays: PAUSES });
  conn.addEventListener("detach", () => link("away"));
  conn.addEventListener("resume", () => link("live"));
  await conn.send(JSON.stringify({ token: recall("token") }));
  for await (const message of conn) {
    take(JSON.parse(message));
    await conn.send("ok");
  }
  return conn.closed;
}

async function watchForEver() {
  for (let attempt = 0; ; attempt++) {
    const before = arrived;
    const end = await watch().catch((error) => error);
    if (end.code === UNKNOWN_TOKEN) await askForToken();
    if (arrived !== before) attempt = 0;
    link("away");
    await sleep((PAUSES[attempt] ?? PAUSES.at(-1)) * (0.5 + Math.random()));
  }
}

function take(message) {
  const isFirst = "config" in message;
  if (isFirst) {
    about = message;
    points.reset(message.points);
    showConfig(message.config);
    setText("version", message.version);
  } else points.add(message.points);
  latest = { now: message.now, state: isFirst ? message.state : { ...latest.state, ...message.state } };
  arrived = performance.now();
  link("live");
  showAlerts(latest.state.alerts, latest.now, isFirst);
  showNow();
  if (!isDue && !isPaused) requestAnimationFrame(draw);
  isDue = true;
}

// What is shown

function draw() {
  isDue = false;
  if (!latest || isPaused) return;
  for (const card of board) card.show(points, seconds, latest.state);
  showStages(latest.state, about.stages, latest.now);
}

/** The server's clock. */
const now = () => latest.now + (performance.now() - arrived) / 1000;

function link(state) {
  if (state === "live") lost = null;
  else lost ??= performance.now();
  $("link").dataset.state = state;
  showNow();
}

/** Whatever changes with time alone: an old state is not to be taken for the present one. */
function showNow() {
  const away = lost === null ? 0 : (performance.now() - lost) / 1000;
  const age = latest ? (performance.now() - arrived) / 1000 : 0;
  const isStale = about?.interval && age > Math.max(5, STALE * about.interval);
  if (!latest) {
    setText("link-text", lost === null ? "Connecting" : `No connection for ${span(away)}`);
    return;
  }
  if (lost !== null) setText("link-text", `No connection for ${span(away)}`);
  if (away >= 1) {
    showVerdict({ level: "unknown", word: "No connection: the state is not known", since: now() - away }, now());
  } else if (isStale) {
    $("link").dataset.state = "away";
    setText("link-text", `No reading for ${span(age)}`);
    showVerdict({ level: "unknown", word: "Nothing is measured: the state is not known", since: now() - age }, now());
  } else if (lost === null) {
    setText("link-text", "Live");
    const isOff = about.interval === null;
    showVerdict(isOff ? { level: "unknown", word: "Measuring is switched off", since: null } : verdict(latest.state, about.began), now());
  }
  document.body.classList.toggle("old", lost !== null || Boolean(isStale));
  setText("uptime", `up ${span(now() - about.began)} · ${time(now(), now())}`);
}

function askForToken() {
  $("entry").hidden = false;
  $("token").focus();
  return new Promise((resolve) => {
    $("entry").onsubmit = (event) => {
      event.preventDefault();
      keep("token", $("token").value.trim());
      $("token").value = "";
      $("entry").hidden = true;
      setText("entry-error", "That was not it.");
      resolve();
    };
  });
}

// What the viewer chooses

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  keep("theme", theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText("theme", `Theme: ${theme}`);
  for (const card of board) card.redraw();
}

$("theme").onclick = () => setTheme(THEMES[(THEMES.indexOf(recall("theme") ?? "system") + 1) % THEMES.length]);
matchMedia("(prefers-color-scheme: dark)").onchange = () => board.forEach((card) => card.redraw());

$("pause").onclick = () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  setText("pause", isPaused ? "Paused: go on" : "Pause");
  draw();
};

$("windows").onchange = (event) => {
  seconds = Number(event.target.value);
  draw();
};

setTheme(recall("theme") ?? "system");
takeToken();
window.onhashchange = () => location.hash.startsWith("#token=") && location.reload();
setInterval(showNow, 1000);
watchForEver();
