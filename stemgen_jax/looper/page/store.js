// SPDX-License-Identifier: Apache-2.0
// The state as the server has it, with changes shown at once while they are on their way there.

import { post } from "./api.js";
import { say, settle } from "./say.js";

const listeners = new Set();
const overlays = []; // {lane, fields}: sent, not yet answered

export const store = { server: null, state: null, selected: null, arrived: null };

/** Calls listener(state) now, if there is one, and after each change. */
export function subscribe(listener) {
  listeners.add(listener);
  if (store.state) listener(store.state);
}

function show() {
  const state = structuredClone(store.server);
  for (const { lane, fields } of overlays) {
    const found = state.lanes.find((one) => one.id === lane);
    if (found) Object.assign(found, fields);
  }
  store.state = state;
  if (!state.lanes.some((lane) => lane.id === store.selected)) {
    store.selected = state.lanes[0]?.id ?? null;
  }
  for (const listener of listeners) listener(state);
}

export function applyState(state) {
  if (!state || typeof state.revision !== "number") return;
  if (store.server && state.revision < store.server.revision) return;
  store.server = state;
  show();
}

export function applyProgress({ job, progress, seconds_left: left }) {
  for (const state of [store.server, store.state]) {
    const entry = state?.queue.find((one) => one.job === job);
    if (entry) Object.assign(entry, { status: "running", progress, seconds_left: left });
  }
  if (store.state) for (const listener of listeners) listener(store.state);
}

/** Sends something that answers with the new state; a failure is a sentence on the page. */
export async function send(path, body) {
  try {
    applyState(await post(path, body));
    settle(path);
    return true;
  } catch (error) {
    say(error.message, "error", { key: error.key ?? path });
    if (store.server) show(); // what was refused is shown no longer
    return false;
  }
}

export const edit = (op, fields = {}) => send("/api/edit", { op, ...fields });

/** An edit that is seen and heard at once, and undone here if the server refuses. */
async function editLane(op, lane, sent, seen = sent) {
  const overlay = { lane, fields: seen };
  overlays.push(overlay);
  show();
  const done = await edit(op, { lane, ...sent });
  overlays.splice(overlays.indexOf(overlay), 1);
  show();
  return done;
}

export const setLane = (lane, fields) => editLane("set_lane", lane, fields);
export const chooseTake = (lane, take) => editLane("choose_take", lane, { take }, { active: take });

export function selectLane(lane) {
  if (store.selected === lane) return;
  store.selected = lane;
  if (store.state) for (const listener of listeners) listener(store.state);
}

export const laneOf = (id) => store.state?.lanes.find((lane) => lane.id === id);

export function sayLocked({ id, name }) {
  const words = `${name} is locked, so it stays as it is. Unlock it first.`;
  say(words, "error", { key: `lock ${id}` });
}

subscribe((state) => {
  for (const { id, lock } of state.lanes) if (!lock) settle(`lock ${id}`);
});

/** Seconds of the loop, of a bar and of a beat. */
export function lengths(state) {
  const loop = state.loop_samples / state.sample_rate;
  const beats = state.song.bars * state.song.beats_per_bar;
  return { loop, bar: loop / state.song.bars, beat: loop / beats, beats };
}

/** "bar 2, beat 3" of a place in the loop. */
export function placeName(state, place) {
  const { beat } = lengths(state);
  const index = Math.round((place / beat) * 100) / 100;
  const bar = Math.floor(index / state.song.beats_per_bar) + 1;
  const within = index - (bar - 1) * state.song.beats_per_bar + 1;
  return `bar ${bar}, beat ${Number(within.toFixed(2))}`;
}
