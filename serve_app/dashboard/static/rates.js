// Decisions a second, from the counts of successive messages.

const OVER_MS = 10_000;

export class Rates {
  #seen = [];

  /** Take in a message; return decisions a second of each variant over the last seconds, null while it is not known. */
  of(state) {
    if (!state.monitor) return {};
    const requests = Object.fromEntries(Object.entries(state.monitor.variants).map(([name, one]) => [name, one.requests]));
    const now = Date.parse(state.at);
    // A monitor that has begun again counts from what it has found so far.
    if (this.#seen.some((before) => Object.entries(before.requests).some(([name, n]) => n > (requests[name] ?? 0)))) this.#seen = [];
    this.#seen.push({ at: now, requests });
    while (now - this.#seen[0].at > OVER_MS) this.#seen.shift();
    const [first] = this.#seen;
    const seconds = (now - first.at) / 1000;
    const since = (name) => (requests[name] - (first.requests[name] ?? 0)) / seconds;
    return Object.fromEntries(Object.keys(requests).map((name) => [name, seconds > 0 ? since(name) : null]));
  }
}
