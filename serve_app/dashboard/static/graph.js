// The graph: each stage with its replicas, what passes through it, and how long it takes.

import { el, inOrder, milliseconds, percent, rate, show } from "./elements.js";

function total(rates) {
  const known = Object.values(rates).filter((one) => one !== null);
  return known.length ? known.reduce((sum, one) => sum + one) : null;
}

function replicas(found, known) {
  if (!known) return null;
  if (!found) return el("p", { class: "quiet" }, "inside the router");
  const text = `${found.running} of ${found.replicas} ${found.replicas === 1 ? "replica" : "replicas"}`;
  const isDown = found.running < found.replicas || found.running === 0;
  return el("p", { class: isDown ? "bad" : "quiet" }, isDown ? `${text} (${found.status.toLowerCase()})` : text);
}

function latency(variants, stage) {
  const lines = inOrder(variants).map(([name, one]) => [name, one.stages_ms?.[stage]]);
  return lines
    .filter(([, found]) => found)
    .map(([name, found]) =>
      el("p", { class: name }, `${name}: ${milliseconds(found.p50)}, p95 ${milliseconds(found.p95)}`));
}

const card = (title, kind, ...lines) => el("div", { class: `stage ${kind}` }, el("b", {}, title), ...lines.flat());

function model(name, state, variants, versions, rates) {
  const reason = state.readiness[name];
  const took = variants[name]?.stages_ms?.model;
  return card(
    `model · ${name}${versions[name] ? ` ${versions[name]}` : ""}`,
    reason ? `${name} down` : name,
    el("p", {}, rate(rates[name] ?? null), took ? `, ${milliseconds(took.p50)}, p95 ${milliseconds(took.p95)}` : ""),
    replicas(state.stages?.models?.[name], state.stages),
    reason ? el("p", { class: "bad" }, reason) : null,
  );
}

export function drawGraph(list, state, versions, rates) {
  const variants = state.monitor?.variants ?? {};
  const failed = Object.values(state.monitor?.errors ?? {}).reduce((sum, n) => sum + n, 0);
  const memory = Object.values(state.monitor?.memory ?? {});
  const stage = (name) => card(name, "", latency(variants, name), replicas(state.stages?.[name], state.stages));
  show(
    list,
    el("li", {}, card("clients", "", el("p", {}, `${rate(total(rates))} answered`),
      el("p", { class: failed ? "warn" : "quiet" }, `errors so far: ${failed.toLocaleString("en")}`))),
    el("li", {}, card("router", "", latency(variants, "queue").map((line) => { line.prepend("queue "); return line; }),
      replicas(state.stages?.router, state.stages),
      el("p", { class: "quiet" }, `${percent(memory.length ? Math.max(...memory) : null, 0)} of memory`))),
    el("li", {}, stage("preprocess")),
    el("li", {}, ...Object.keys(state.readiness).map((name) => model(name, state, variants, versions, rates))),
    el("li", {}, stage("strategy")),
  );
}
