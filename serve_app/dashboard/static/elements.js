// Making elements, and writing numbers. Text is always set as text: what a client sent is never read as HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Put children in place of those that are there. */
export function show(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** The parts of both variants, production first. */
export const inOrder = (variants) => Object.entries(variants).sort(([a], [b]) => b.localeCompare(a));

const known = (value) => value !== null && value !== undefined;

export const count = (value) => (known(value) ? value.toLocaleString("en") : "–");
export const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : "–");
export const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)} %` : "–");
export const milliseconds = (value) => (known(value) ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–");
export const rate = (value) => (known(value) ? `${value.toFixed(value < 10 ? 1 : 0)}/s` : "–");

/** A time of the service (ISO 8601, UTC), to the minute; midnight, as daily bars have it, without the time. */
export function moment(iso) {
  if (!iso) return "–";
  const text = new Date(iso).toISOString();
  return text.slice(11, 16) === "00:00" ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

/** The time of day here, to the second. */
export const clock = (iso) => new Date(iso).toLocaleTimeString("en-GB");
