// The two charts, by Lightweight Charts of TradingView.

import {
  CandlestickSeries, LineSeries, createChart, createSeriesMarkers,
} from "./vendor/lightweight-charts-5.2.1.mjs";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const look = () => ({
  // Whose they are is said at the foot of the page.
  layout: { attributionLogo: false, background: { color: "transparent" }, textColor: colour("quiet"), panes: { separatorColor: colour("line") } },
  grid: { vertLines: { color: colour("line") }, horzLines: { color: colour("line") } },
  rightPriceScale: { borderColor: colour("line") },
  timeScale: { borderColor: colour("line"), timeVisible: true, secondsVisible: false },
});

const seconds = (iso) => Math.floor(Date.parse(iso) / 1000);

/** The latest decision of each bar, oldest first. */
function byBar(decisions) {
  const known = decisions.filter((one) => one.timestamp).map((one) => [seconds(one.timestamp), one]);
  return [...new Map(known)].sort(([a], [b]) => a - b);
}

const WORDS = 20; // marks beyond which the words would lie on each other
const LOOK = {
  BUY: () => ({ position: "belowBar", shape: "arrowUp", color: colour("good") }),
  SELL: () => ({ position: "aboveBar", shape: "arrowDown", color: colour("bad") }),
};

function marks(decided) {
  const acted = decided.filter(([, one]) => one.action in LOOK);
  return acted.map(([time, { action }]) => ({ time, text: acted.length > WORDS ? "" : action, ...LOOK[action]() }));
}

/** Candles of one symbol with what was decided at them, and the probability below. */
export class BarChart {
  constructor(node) {
    this.node = node;
    this.chart = createChart(node, { autoSize: true, ...look() });
    this.bars = this.chart.addSeries(CandlestickSeries, {});
    this.marks = createSeriesMarkers(this.bars, []);
    this.probability = this.chart.addSeries(LineSeries, { lineWidth: 2, title: "probability", pointMarkersVisible: true }, 1);
    this.chart.panes()[1]?.setStretchFactor(0.5);
    this.symbol = null;
    this.dress();
  }

  dress() {
    this.chart.applyOptions(look());
    const [up, down] = [colour("good"), colour("bad")];
    this.bars.applyOptions({ upColor: up, wickUpColor: up, borderUpColor: up, downColor: down, wickDownColor: down, borderDownColor: down });
    this.probability.applyOptions({ color: colour("production") });
    if (this.shown) this.show(this.shown);
  }

  show(chart) {
    this.shown = chart;
    const decided = byBar(chart.decisions);
    this.bars.setData(chart.bars.map(([time, open, high, low, close]) => ({ time, open, high, low, close })));
    this.probability.setData(decided.filter(([, one]) => one.probability !== null).map(([time, one]) => ({ time, value: one.probability })));
    this.marks.setMarkers(marks(decided));
    const marked = ["BUY", "SELL"].map((action) => `${decided.filter(([, one]) => one.action === action).length} ${action}`);
    this.node.setAttribute("aria-label", `${chart.bars.length} bars of ${chart.symbol}; marked: ${marked.join(", ")}`);
    if (chart.symbol !== this.symbol) this.chart.timeScale().fitContent();
    this.symbol = chart.symbol;
  }
}

/** The paired difference of two models over time, with the band that it stays in unless they differ. */
export class BandChart {
  constructor(node) {
    this.chart = createChart(node, { autoSize: true, ...look() });
    this.lines = Object.fromEntries(["low", "mean", "high"].map((name) => [name, this.chart.addSeries(LineSeries, {
      lineWidth: name === "mean" ? 2 : 1, lineStyle: name === "mean" ? 0 : 2, priceLineVisible: false,
      lastValueVisible: name === "mean", priceFormat: { type: "price", precision: 4, minMove: 0.0001 },
    })]));
    this.zero = this.lines.mean.createPriceLine({ price: 0, lineWidth: 1, title: "equal" });
    this.dress();
  }

  dress() {
    this.chart.applyOptions(look());
    for (const line of Object.values(this.lines)) line.applyOptions({ color: colour("candidate") });
    this.zero.applyOptions({ color: colour("quiet") });
  }

  show(difference) {
    for (const [name, line] of Object.entries(this.lines)) {
      line.setData(difference.time.map((time, i) => ({ time: seconds(time), value: difference[name][i] })));
    }
    this.chart.timeScale().fitContent();
  }
}
