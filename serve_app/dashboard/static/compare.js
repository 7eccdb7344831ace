// Production against candidate: what each answered, and what the paired comparison has shown.

import { count, el, fixed, inOrder, milliseconds, percent, rate, show } from "./elements.js";

const sum = (counts) => Object.values(counts).reduce((all, n) => all + n, 0);

const ROWS = [
  ["version", (one, { version }) => version ?? "–"],
  ["decisions", (one) => count(one.requests)],
  ["share", (one, { all }) => percent(all ? one.requests / all : null)],
  ["now", (one, { rates, name }) => rate(rates[name] ?? null)],
  ["BUY / SELL / HOLD", (one) => ["BUY", "SELL", "HOLD"].map((action) => count(one.actions[action] ?? 0)).join(" / ")],
  ["abstentions", (one) => count(sum(one.abstentions))],
  ["mean prediction", (one) => fixed(one.mean_prediction, 3)],
  ["latency p50", (one) => milliseconds(one.latency_ms?.p50)],
  ["latency p95", (one) => milliseconds(one.latency_ms?.p95)],
  ["rolling accuracy", (one, { accuracy, name }) => percent(accuracy[name] ?? null)],
  ["accuracy of all", (one, { outcomes }) => (outcomes
    ? `${percent(outcomes.accuracy, 0)} (${percent(outcomes.accuracy_low, 0)} to ${percent(outcomes.accuracy_high, 0)})` : "–")],
  ["outcomes", (one, { outcomes }) => (outcomes ? `${count(outcomes.n)}, worth ${count(outcomes.effective_n)}` : "–")],
  ["Brier score", (one, { outcomes }) => fixed(outcomes?.brier, 4)],
  ["average precision", (one, { outcomes }) => (outcomes?.average_precision
    ? `${fixed(outcomes.average_precision, 3)} (base rate ${fixed(outcomes.base_rate, 3)})` : "–")],
];

export function drawVariants(node, monitor, versions, rates) {
  const names = inOrder(monitor.variants).map(([name]) => name);
  if (!names.length) return show(node, el("p", { class: "quiet" }, "Nothing has been asked yet."));
  const all = names.reduce((n, name) => n + monitor.variants[name].requests, 0);
  const cell = (write, name) =>
    el("td", { class: "number" }, write(monitor.variants[name], {
      all, rates, name, version: versions[name], accuracy: monitor.rolling_accuracy, outcomes: monitor.outcomes[name],
    }));
  show(
    node,
    el("table", {},
      el("thead", {}, el("tr", {}, el("td"),
        ...names.map((name) => el("th", { scope: "col", class: `number ${name}` }, name)))),
      el("tbody", {}, ...ROWS.map(([label, write]) =>
        el("tr", {}, el("th", { scope: "row" }, label), ...names.map((name) => cell(write, name)))))),
  );
}

/** Say what the evidence says; return whether there is a band to draw. */
export function drawEvidence(node, experiment) {
  if (!experiment) {
    show(node, el("p", { class: "quiet" },
      "No evidence: it needs a journal in the configuration, a candidate, and the shadow (signalgraph release shadow on)."));
    return false;
  }
  const { verdict, doubts, counts, brier_difference: difference, name } = experiment;
  const last = difference.mean.length - 1;
  show(
    node,
    el("h3", {}, el("a", { href: `../v1/experiments/${encodeURIComponent(name)}` }, name)),
    el("p", {}, el("b", {}, verdict.advice.replaceAll("_", " ")), `: ${verdict.because}`),
    ...doubts.map((doubt) => el("p", { class: "bad" }, `Not to be believed: ${doubt}`)),
    el("p", { class: "quiet" }, `${count(counts.compared)} predictions compared, ${count(counts.pending)} wait for their outcome.`),
    last < 0 ? null : el("p", { class: "quiet" },
      `Brier score of the candidate less that of production: ${fixed(difference.mean[last], 4)}, ` +
      `between ${fixed(difference.low[last], 4)} and ${fixed(difference.high[last], 4)}; below 0 the candidate is better.`),
  );
  return last > 0;
}
