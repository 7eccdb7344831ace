// What is wrong now, and what was.

import { clock, el, show } from "./elements.js";

// Of drift, the version is the subject.
const about = (one) => [...new Set([one.subject ?? "the graph", one.model_version ?? []].flat())].join(" ");
const title = (one) => `${one.alert.replaceAll("_", " ")} (${about(one)})`;

export function drawAlerts(firing, events, monitor) {
  show(firing, ...(monitor.alerts.length
    ? monitor.alerts.map((one) => el("li", { class: one.state === "firing" ? "bad" : "warn" },
      el("b", {}, title(one)), ` ${one.state}: ${one.message}`))
    : [el("li", { class: "good" }, "Nothing is wrong.")]));
  show(events, ...(monitor.events.length
    ? monitor.events.slice(0, 8).map((one) => el("li", {}, `${clock(one.since)} ${title(one)} ${one.state}: ${one.message}`))
    : [el("li", {}, "Nothing yet.")]));
}
