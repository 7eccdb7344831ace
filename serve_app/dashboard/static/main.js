// Follows the graph and draws each part of the page when it has changed.

import { drawAlerts } from "./alerts.js";
import { follow, getKey, setKey } from "./api.js";
import { BandChart } from "./charts.js";
import { drawEvidence, drawVariants } from "./compare.js";
import { Decisions } from "./decisions.js";
import { drawDrift } from "./drift.js";
import { drawGraph } from "./graph.js";
import { Rates } from "./rates.js";
import { Releases } from "./releases.js";

const node = (id) => document.getElementById(id);
const AGAIN_MS = 2_000;
const UNAUTHORIZED = 401;

function theme(chosen) {
  const dark = chosen ?? localStorage.getItem("signalgraph-theme")
    ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark;
}

function say(text, kind = "") {
  if (node("state").textContent === text) return; // a screen reader would read it again
  node("state").textContent = text;
  node("state").className = kind;
}

theme();
const rates = new Rates();
const band = { chart: null };
const decisions = new Decisions({
  table: node("latest"), select: node("symbol"), chart: node("chart"), note: node("chart-note"),
});
const releases = new Releases({
  controls: node("controls"), now: node("in-force"), history: node("history"),
  promote: node("promote"), rollback: node("rollback"),
  dialog: node("confirm"), form: node("confirm").querySelector("form"), title: node("confirm-title"), text: node("confirm-text"),
  who: node("who"), why: node("why"), controlKey: node("control-key"),
  yes: node("confirm-yes"), cancel: node("confirm-no"), error: node("confirm-error"),
  say: (text) => say(text, "good"),
});

const drawn = new Map();
/** Draw a part unless it would look as it does. */
function draw(part, data, how) {
  const text = JSON.stringify(data);
  if (drawn.get(part) === text) return;
  drawn.set(part, text);
  how(data);
}

/** The version of each variant: of the release in force or, where nothing keeps releases, the one that answered last. */
function versionsOf({ releases, monitor }) {
  if (releases?.in_force) return releases.in_force.versions;
  return Object.fromEntries(Object.entries(monitor?.variants ?? {}).map(([name, one]) => [name, one.model_version]));
}

function drawBand(experiment) {
  const isDrawn = drawEvidence(node("evidence"), experiment);
  node("band").hidden = !isDrawn;
  if (!isDrawn) return;
  band.chart ??= new BandChart(node("band"));
  band.chart.show(experiment.brier_difference);
}

function take(state) {
  const perSecond = rates.of(state);
  const waiting = Object.values(state.readiness).filter(Boolean);
  say(waiting.length ? "Not ready" : "Live", waiting.length ? "bad" : "good");
  node("trouble").hidden = !state.trouble.length;
  node("trouble").textContent = state.trouble.join(" · ");
  const versions = versionsOf(state);
  draw("graph", [state.monitor?.variants, state.monitor?.errors, state.monitor?.memory, state.stages, state.readiness, versions, perSecond],
    () => drawGraph(node("stages"), state, versions, perSecond));
  draw("experiment", state.experiment, drawBand);
  draw("releases", state.releases, (data) => releases.draw(data));
  if (!state.monitor) return;
  draw("variants", [state.monitor.variants, state.monitor.outcomes, versions, perSecond],
    () => drawVariants(node("variants"), state.monitor, versions, perSecond));
  draw("alerts", [state.monitor.alerts, state.monitor.events], () => drawAlerts(node("firing"), node("events"), state.monitor));
  draw("drift", state.monitor.drift, (data) => drawDrift(node("features"), data));
  draw("decisions", state.monitor.latest, (data) => decisions.draw(data));
}

function askForKey() {
  if (node("ask-key").open) return; // whoever types is not to be disturbed
  node("api-key").value = getKey();
  node("ask-key").showModal();
}

node("ask-key").addEventListener("close", () => setKey(node("api-key").value));
node("key").addEventListener("click", askForKey);
node("theme").addEventListener("click", () => {
  const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("signalgraph-theme", other);
  theme(other);
  decisions.dress();
  band.chart?.dress();
});

const pause = () => new Promise((done) => { setTimeout(done, AGAIN_MS); });

for (;;) {
  try {
    await follow(take);
  } catch (error) {
    say(error.status === UNAUTHORIZED ? "A key is needed" : "Not connected; trying again", "bad");
    if (error.status === UNAUTHORIZED) askForKey();
    await pause();
  }
}
