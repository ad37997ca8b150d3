// SPDX-License-Identifier: Apache-2.0
// Requests to the looper's server. The token comes from the page's own address.

const token = new URLSearchParams(location.search).get("token") ?? "";

const UNANSWERED = "The looper does not answer, so this was not done. What was made is kept.";

/** What cannot be done, as a sentence; `key` is what it is said under, where it is no one's own. */
export class Failure extends Error {
  constructor(message, key = null) {
    super(message);
    this.key = key;
  }
}

export function url(path, query = {}) {
  return `${path}?${new URLSearchParams({ ...query, token })}`;
}

/** The answer of one request, or a Failure whose message is a sentence for the page. */
export async function request(path, { method = "GET", query = {}, body, type, signal } = {}) {
  let answer;
  try {
    const headers = type ? { "Content-Type": type } : {};
    answer = await fetch(url(path, query), { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(UNANSWERED, "unanswered");
  }
  if (!answer.ok) throw new Failure(await complaint(answer));
  return answer;
}

async function complaint(answer) {
  const text = await answer.text().catch(() => "");
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text || `The looper answered with number ${answer.status} and no words.`;
  }
}

export async function post(path, body = {}) {
  const options = { method: "POST", body: JSON.stringify(body), type: "application/json" };
  return (await request(path, options)).json();
}

export async function fetchState() {
  return (await request("/api/state")).json();
}

export async function upload(data, lane, name, more = {}) {
  const query = { lane, name, ...more };
  const type = "application/octet-stream";
  return (await request("/api/upload", { method: "POST", query, body: data, type })).json();
}

/** Listens to the server for as long as the page lives; tells when it is lost and found again. */
export function listen({ onState, onProgress, onLost, onFound }) {
  let source, lost = false;
  const open = () => {
    source = new EventSource(url("/api/events"));
    source.addEventListener("open", () => {
      if (lost) onFound();
      lost = false;
    });
    source.addEventListener("state", (event) => onState(JSON.parse(event.data)));
    source.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      if (!lost) onLost();
      lost = true;
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 2000);
    });
  };
  const again = async () => { // 403: another start, whose address has another token
    const answer = await fetch(url("/api/state")).catch(() => null);
    if (answer?.status === 403) onLost(true);
    else open();
  };
  open();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && open());
}
