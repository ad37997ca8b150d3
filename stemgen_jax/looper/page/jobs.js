// SPDX-License-Identifier: Apache-2.0
// What is being written: asking for it, the queue in sight, and how long it took to be heard.

import { post } from "./api.js";
import { byId, seconds, setText } from "./dom.js";
import { onPlayer, player } from "./player.js";
import { announce, say, settle } from "./say.js";
import { laneOf, sayLocked, send, store, subscribe } from "./store.js";

const KINDS = { generate: "generate", another: "another take", vary: "a variation" };
const STATUS = {
  loading: "The model is being loaded.", compiling: "The model is being compiled, once.",
  ready: "Ready.", recorded: "Takes are recorded ones.", failed: "The model has failed.",
};
const NEARLY = 0.9; // done, and the time that such a take needs is over
const asked = new Map(); // lane -> {job, at, known takes, take}
const timings = new Map(); // lane -> words

export const timingOf = (lane) => timings.get(lane) ?? "";

/** Asks for a take: `more` may hold amount (of vary) and keep. */
export async function write(lane, kind, more = {}) {
  const found = laneOf(lane);
  if (!found) return;
  if (found.lock) {
    sayLocked(found);
    return;
  }
  const known = new Set(found.takes.map((take) => take.id));
  const entry = { job: null, at: performance.now(), known, take: null };
  asked.set(lane, entry);
  timings.delete(lane);
  try {
    entry.job = (await post("/api/generate", { lane, kind, ...more })).job;
    settle("generate");
    announce(`${found.name}: ${KINDS[kind]} is asked for.`);
  } catch (error) {
    asked.delete(lane);
    say(error.message, "error", { key: error.key ?? "generate" });
  }
}

export const cancel = (job) => send("/api/cancel", { job });

/** Cancels what the lane is waiting for; returns whether there was anything. */
export function cancelLane(lane) {
  const jobs = store.state?.queue.filter((one) => one.lane === lane) ?? [];
  for (const { job } of jobs) cancel(job);
  return jobs.length > 0;
}

export const jobOf = (state, lane) => state.queue.find((one) => one.lane === lane);

/** "43 %, 0.8 s left", "next in line" or "waits for the model". */
export function jobWords(state, entry) {
  if (entry.status === "waiting") {
    if (["loading", "compiling"].includes(state.model.status)) return "waits for the model";
    const place = state.queue.filter((one) => one.status === "waiting").indexOf(entry) + 1;
    return place === 1 ? "next in line" : `number ${place} in line`;
  }
  const done = `${Math.round((entry.progress ?? 0) * 100)} %`;
  const left = entry.seconds_left;
  if (Number.isFinite(left)) return `${done}, ${seconds(left)} left`;
  return entry.progress >= NEARLY ? "almost done" : done;
}

function follow(state) {
  for (const [lane, entry] of asked) {
    if (!entry.job || state.queue.some((one) => one.job === entry.job)) continue;
    const found = state.lanes.find((one) => one.id === lane);
    const take = found?.takes.find((one) => !entry.known.has(one.id));
    if (!take) asked.delete(lane);
    else if (entry.take !== take.id) {
      Object.assign(entry, { take: take.id, written: take.seconds });
      store.arrived = { at: performance.now(), words: `Take ${take.label} of ${found.name}` };
      announce(`${found.name}: take ${take.label} is written.`);
      if (player.engine?.playing) continue;
      settleTiming(lane, entry, performance.now(), "ready");
    }
  }
}

function settleTiming(lane, entry, time, word) {
  const whole = (time - entry.at) / 1000;
  const written = Number.isFinite(entry.written) ? `, ${seconds(entry.written)} of it writing` : "";
  timings.set(lane, `${word} after ${seconds(whole)}${written}`);
  asked.delete(lane);
}

/** Once the engine knows when the take begins, so does the time from "generate" to sound. */
function listenFor() {
  const { engine } = player;
  for (const [lane, entry] of asked) {
    if (!entry.take || !engine?.playing) continue;
    const strip = engine.lanes.get(lane);
    const voice = [strip?.next, strip?.voice].find((one) => one?.id === entry.take);
    if (!voice) continue;
    const wait = (voice.from - engine.now()) / engine.rate + (engine.context.outputLatency || 0);
    settleTiming(lane, entry, performance.now() + wait * 1000, "heard");
  }
}

function drawQueue(state) {
  const list = byId("queue");
  const jobs = new Set(state.queue.map((entry) => entry.job));
  for (const item of [...list.children]) if (!jobs.has(item.dataset.job)) item.remove();
  state.queue.forEach((entry, index) => {
    let item = [...list.children].find((one) => one.dataset.job === entry.job);
    if (!item) item = list.appendChild(queueItem(entry));
    if (list.children[index] !== item) list.insertBefore(item, list.children[index]);
    const lane = state.lanes.find((one) => one.id === entry.lane);
    item.style.setProperty("--lane", `var(--c${state.lanes.indexOf(lane) % 8})`);
    item.style.setProperty("--done", entry.status === "running" ? entry.progress ?? 0 : 0);
    setText(item.querySelector("span"), `${lane?.name ?? "?"}: ${jobWords(state, entry)}`);
    item.querySelector("button").setAttribute("aria-label", `Cancel ${lane?.name ?? ""}`);
  });
}

function queueItem({ job }) {
  const item = document.createElement("li");
  item.dataset.job = job;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "×";
  button.addEventListener("click", () => cancel(job));
  item.append(document.createElement("span"), button);
  return item;
}

function drawModel(state) {
  const { status, message, seconds_last: last } = state.model;
  byId("model").dataset.status = status;
  const time = Number.isFinite(last) ? ` The last take was written in ${seconds(last)}.` : "";
  const preset = state.model.preset ?? "";
  setText(byId("model-words"), `${message || STATUS[status]}${time}`);
  setText(byId("trade"), preset === message ? "" : preset);
  setText(byId("preset"), preset);
}

subscribe((state) => {
  follow(state);
  drawQueue(state);
  drawModel(state);
});
onPlayer(listenFor);
setInterval(listenFor, 100);
