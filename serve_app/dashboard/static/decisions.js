// Decisions as they come, and the bars of the symbol that is chosen.

import { get } from "./api.js";
import { BarChart } from "./charts.js";
import { el, fixed, milliseconds, moment } from "./elements.js";

const ACTION = { BUY: "good", SELL: "bad" };

function row(one, choose) {
  const button = el("button", { type: "button", class: "link", "aria-label": `Show the bars of ${one.symbol}` }, one.symbol);
  button.addEventListener("click", () => choose(one.symbol));
  const said = one.reason ? `${one.action} (${one.reason})` : one.action;
  return el("tr", { "data-id": one.decision_id, class: "new" },
    el("td", {}, button),
    el("td", {}, moment(one.timestamp)),
    el("td", { class: one.reason ? "warn" : ACTION[one.action] }, said),
    el("td", { class: "number" }, fixed(one.probability, 4)),
    el("td", { class: one.variant }, `${one.variant} ${one.model_version}`),
    el("td", { class: "number" }, milliseconds(one.latency_ms)));
}

export class Decisions {
  constructor({ table, select, chart, note }) {
    Object.assign(this, { table, select, note });
    this.chart = new BarChart(chart);
    this.newest = null;
    select.addEventListener("change", () => this.choose(select.value));
  }

  /** Only what is new is added, so that whoever is in the table with the keyboard stays where they are. */
  draw({ decisions, symbols }) {
    const shown = new Set([...this.table.children].map((line) => line.dataset.id));
    const fresh = decisions.filter((one) => !shown.has(one.decision_id));
    this.table.prepend(...fresh.map((one) => row(one, (symbol) => this.choose(symbol))));
    while (this.table.children.length > Math.max(decisions.length, 1)) this.table.lastElementChild.remove();
    this.#offer(symbols);
    if (!this.select.value) return;
    const newest = decisions.find((one) => one.symbol === this.select.value)?.decision_id ?? this.select.value;
    if (newest !== this.newest) {
      this.newest = newest;
      this.#load(this.select.value);
    }
  }

  choose(symbol) {
    this.select.value = symbol;
    this.#load(symbol);
  }

  dress() {
    this.chart.dress();
  }

  #offer(symbols) {
    const known = [...this.select.options].map((option) => option.value);
    if (known.join() === symbols.join()) return;
    const chosen = this.select.value;
    this.select.replaceChildren(...symbols.map((symbol) => el("option", { value: symbol }, symbol)));
    if (symbols.includes(chosen)) this.select.value = chosen;
  }

  async #load(symbol) {
    try {
      const chart = await get(`charts/${encodeURIComponent(symbol)}`);
      if (this.select.value !== symbol) return;
      this.chart.show(chart);
      this.note.textContent = chart.bars.length
        ? `${chart.bars.length} bars, ${chart.decisions.length} decisions`
        : "Its clients send features, and no bars.";
    } catch (error) {
      this.note.textContent = error.message;
    }
  }
}
