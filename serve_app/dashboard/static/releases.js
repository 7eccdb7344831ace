// What is in force, how it came to be, and the two changes that cannot wait for a shell.

import { change } from "./api.js";
import { el, moment, percent, show } from "./elements.js";

const CHANGES = {
  promote: { title: "Promote the candidate", yes: "Promote" },
  rollback: { title: "Roll back", yes: "Roll back" },
};

function whatWouldHappen(step, { versions, release }) {
  if (step === "promote") {
    return `${versions.candidate} becomes production and answers every symbol; ${versions.production} stays loaded as the candidate.`;
  }
  const share = release.assignment.candidate_share;
  const answers = share > 0 || Object.values(release.assignment.pins).includes("candidate");
  return answers
    ? `The candidate ${versions.candidate} answers nobody any more; ${versions.production} stays production.`
    : "The last promotion is undone. If there was none, nothing changes.";
}

function describe({ epoch, versions, release }) {
  const { candidate_share: share, pins } = release.assignment;
  const pinned = Object.entries(pins).map(([symbol, variant]) => `${symbol} → ${variant}`).join(", ");
  return [
    el("p", {}, el("b", {}, `Epoch ${epoch}`), ": production ", el("b", { class: "production" }, versions.production ?? "?"),
      versions.candidate ? ", candidate " : "",
      versions.candidate ? el("b", { class: "candidate" }, versions.candidate) : ""),
    versions.candidate
      ? el("p", { class: "quiet" }, `The candidate answers ${percent(share, 0)} of the symbols${pinned ? `; pinned: ${pinned}` : ""}.` +
        ` Shadow ${release.shadow ? `on, ${percent(release.shadow_share, 0)}` : "off"}.`)
      : null,
  ];
}

export class Releases {
  #inForce = null;
  #step = null;
  #asked = null; // the epoch that the question is about

  constructor(nodes) {
    Object.assign(this, nodes);
    for (const step of Object.keys(CHANGES)) this[step].addEventListener("click", () => this.#ask(step));
    this.cancel.addEventListener("click", () => this.dialog.close());
    this.form.addEventListener("submit", (event) => this.#confirmed(event));
  }

  draw(releases) {
    this.controls.hidden = !releases?.in_force;
    if (!releases?.in_force) {
      return show(this.now, el("p", { class: "quiet" }, "The configuration is in force. With a journal in it, releases can change while the graph runs."));
    }
    this.#inForce = releases.in_force;
    this.promote.disabled = !releases.in_force.versions.candidate;
    show(this.now, ...describe(releases.in_force).filter(Boolean));
    show(this.history, ...releases.history.map((one) =>
      el("li", {}, `${moment(one.at)} epoch ${one.epoch}: ${one.step} by ${one.who}: ${one.why}`)));
  }

  #ask(step) {
    this.#step = step;
    this.#asked = this.#inForce.epoch;
    this.title.textContent = CHANGES[step].title;
    this.text.textContent = whatWouldHappen(step, this.#inForce);
    this.yes.textContent = CHANGES[step].yes;
    this.error.textContent = "";
    this.why.value = "";
    this.controlKey.value = "";
    this.dialog.showModal();
  }

  async #confirmed(event) {
    event.preventDefault();
    this.yes.disabled = true;
    try {
      const body = { who: this.who.value, why: this.why.value, follows: this.#asked };
      const made = await change(this.#step, this.controlKey.value.trim(), body);
      this.dialog.close();
      this.say(`Epoch ${made.epoch} is in force.`);
    } catch (error) {
      this.error.textContent = error.message;
    } finally {
      this.yes.disabled = false;
      this.controlKey.value = "";
    }
  }
}
