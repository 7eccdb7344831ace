// How far each feature is from training: the bar is the distance (KS), the mark where it is no accident any more.

import { el, fixed, show } from "./elements.js";

const MARK = 2 / 3;

function feature(name, one) {
  const share = Math.min(1, (one.ks / one.ks_limit) * MARK);
  const fill = el("span", { class: "fill" });
  fill.style.width = `${100 * share}%`;
  const how = one.drifted.length ? one.drifted.join(", ") : "as in training";
  return el("div", { class: one.drifted.length ? "feature drifted" : "feature", title: `PSI ${fixed(one.psi, 3)}` },
    el("span", {}, name),
    el("span", { class: "track", role: "img", "aria-label": `distance ${fixed(one.ks, 3)}, limit ${fixed(one.ks_limit, 3)}` }, fill),
    el("span", { class: one.drifted.length ? "bad" : "quiet" }, how));
}

export function drawDrift(node, drift) {
  const bundles = Object.values(drift).filter((one) => one.features);
  if (!bundles.length) {
    return show(node, el("p", { class: "quiet" },
      "No verdict yet: the first comes after 100 predictions, for a bundle with a reference."));
  }
  show(node, ...bundles.flatMap((bundle) => [
    el("h3", {}, bundle.model_version),
    ...Object.entries(bundle.features).map(([name, one]) => feature(name, one)),
  ]));
}
