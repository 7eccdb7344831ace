// The calls of the service. The key, where one is needed, stays in this tab.

const KEY = "signalgraph-api-key";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => sessionStorage.setItem(KEY, key.trim());

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, key, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(`../v1/${path}`, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(response.status, said.error ?? `HTTP ${response.status}`);
}

export async function get(path) {
  return (await call(path, getKey())).json();
}

/** Post a change of the releases, under the control key. */
export async function change(step, controlKey, body) {
  return (await call(`releases:${step}`, controlKey, { method: "POST", body: JSON.stringify(body) })).json();
}

/**
 * Give each message of the event stream to `take` until the stream ends, as it does every few seconds.
 * By fetch, since an EventSource sends no key.
 */
export async function follow(take) {
  const response = await call("events", getKey());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const messages = (text + value).split("\n\n");
    text = messages.pop();
    for (const message of messages) take(JSON.parse(message.slice("data: ".length)));
  }
}
