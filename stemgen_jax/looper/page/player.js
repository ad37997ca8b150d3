// SPDX-License-Identifier: Apache-2.0
// Keeps the engine in agreement with the state: takes fetched and decoded ahead, levels, loop.

import { request } from "./api.js";
import { announce, say, settle } from "./say.js";
import { Engine } from "./engine.js";
import { store, subscribe } from "./store.js";

const SILENT_DB = -60;
const LATENCY_S = 0.08; // asked for: enough that nothing stutters while the model works
const AHEAD = 6; // takes of a lane that are decoded before anybody asks

const buffers = new Map(); // key -> promise of an AudioBuffer
const ready = new Map(); // key -> AudioBuffer
const onsets = new Map(); // take -> seconds, or null while they are asked for
let asking = Promise.resolve();
const listeners = new Set();

export const player = { engine: null, loop: "", volume: 1 };

/** Calls listener(name) when a take is decoded ("take"), and when playing starts or stops. */
export const onPlayer = (listener) => listeners.add(listener);
const tell = (name, detail) => listeners.forEach((listener) => listener(name, detail));

function keyOf(state, take) {
  const { tempo_bpm: tempo, beats_per_bar: beats, bars, offset_s: offset } = state.song;
  return [take, state.loop_samples, state.sample_rate, tempo, beats, bars, offset].join("/");
}

/** The take's sound if it is there, else null; it is fetched meanwhile. */
export function bufferOf(state, take) {
  if (!take || !state.loop_samples) return null;
  const key = keyOf(state, take);
  if (!buffers.has(key)) buffers.set(key, load(state, take, key));
  return ready.get(key) ?? null;
}

async function load(state, take, key) {
  try {
    const data = await (await request(`/api/take/${take}.wav`)).arrayBuffer();
    const context = new OfflineAudioContext(1, 1, state.sample_rate);
    const buffer = await context.decodeAudioData(data);
    if (buffer.length !== state.loop_samples) throw new Error(`it has ${buffer.length} samples`);
    ready.set(key, buffer);
    settle(`take ${take}`);
    if (store.state && keyOf(store.state, take) === key) {
      agree(store.state);
      tell("take", take);
    }
  } catch (error) {
    setTimeout(() => buffers.delete(key), 3000); // asked for again then
    if (store.state && keyOf(store.state, take) === key) {
      const words = `A take could not be read (${error.message}). It is tried again.`;
      say(words, "error", { key: `take ${take}` });
    }
  }
}

/** Where notes begin in a take, in seconds; null until it is known. */
export function onsetsOf(take) {
  if (!take) return null;
  if (!onsets.has(take)) {
    onsets.set(take, null);
    // One after the other: a browser keeps few connections, and sound must not wait for them.
    asking = asking.then(() => request(`/api/take/${take}.json`))
      .then((answer) => answer.json())
      .then((about) => onsets.set(take, about.onsets_s ?? []))
      .then(() => tell("onsets", take))
      .catch(() => onsets.delete(take));
  }
  return onsets.get(take);
}

/** How loud and where a lane sounds, mute and solo of all lanes counted in. */
export function mixOf(state, lane) {
  const solo = state.lanes.some((one) => one.solo);
  const silent = lane.mute || (solo && !lane.solo) || lane.level_db <= SILENT_DB;
  return { gain: silent ? 0 : 10 ** (lane.level_db / 20), pan: lane.pan };
}

function takeOf(state, take) {
  const buffer = bufferOf(state, take);
  return buffer && { id: take, buffer };
}

function applyTo(engine, state) {
  for (const lane of state.lanes) {
    engine.setMix(lane.id, mixOf(state, lane));
    const take = takeOf(state, lane.active);
    if (take || !lane.active) engine.setTake(lane.id, take);
  }
}

function agree(state) {
  const there = state.lanes.map((lane) => !lane.active || bufferOf(state, lane.active));
  if (there.every(Boolean)) { // what sounds comes first
    const ahead = state.lanes.flatMap((lane) => lane.takes.slice(-AHEAD));
    for (const take of ahead) bufferOf(state, take.id);
  }
  forget(state);
  const { engine } = player;
  if (!engine) return;
  for (const id of [...engine.lanes.keys()]) {
    if (!state.lanes.some((lane) => lane.id === id)) engine.removeLane(id);
  }
  const loop = keyOf(state, "");
  if (player.loop !== loop) {
    if (!state.loop_samples) stop();
    if (engine.playing && !there.every(Boolean)) { // the old loop plays on until the new one is there
      for (const lane of state.lanes) engine.setMix(lane.id, mixOf(state, lane));
      return;
    }
    player.loop = loop;
    const takes = state.lanes.map(({ id, active }) => [id, takeOf(state, active)]);
    engine.change({ frames: state.loop_samples || 1, bars: state.song.bars }, new Map(takes));
  }
  applyTo(engine, state);
}

function forget(state) {
  const wanted = new Set(state.lanes.flatMap((l) => l.takes.map((t) => keyOf(state, t.id))));
  for (const key of ready.keys()) {
    if (!wanted.has(key) && ready.size > wanted.size + 12) {
      ready.delete(key);
      buffers.delete(key);
    }
  }
}

/** The engine, made at the first need: browsers let nothing sound before a person acts. */
export async function ensureEngine() {
  const { state } = store;
  if (!player.engine) {
    player.making ??= (async () => {
      const context = new AudioContext({ sampleRate: state.sample_rate, latencyHint: LATENCY_S });
      const loop = { frames: state.loop_samples || 1, bars: state.song.bars || 1 };
      player.engine = await Engine.build(context, loop);
      player.engine.volume.gain.value = player.volume;
      player.loop = keyOf(state, "");
      context.addEventListener("statechange", () => tell("context", context.state));
    })().finally(() => { player.making = null; });
    await player.making;
    agree(store.state);
  }
  if (player.engine.context.state !== "running") await player.engine.context.resume();
  return player.engine;
}

export async function play(place = 0, countIn = 0) {
  if (!store.state?.loop_samples) {
    say("There is no loop yet: drop a sound, record one, or start from silence.");
    return null;
  }
  try {
    const engine = await ensureEngine();
    const early = Math.ceil(0.06 * engine.rate);
    const at = engine.start(place, engine.now() + early + countIn);
    settle("sound");
    tell("play");
    return at;
  } catch (error) {
    const words = `The browser gives no sound (${error.message}). Look at its sound settings.`;
    say(words, "error", { key: "sound" });
    return null;
  }
}

export function stop() {
  if (!player.engine?.playing) return;
  player.engine.stop();
  tell("stop");
}

export function toggle() {
  if (player.engine?.playing) {
    stop();
    announce("Stopped.");
  } else play().then((at) => at !== null && announce("Playing."));
}

export function setVolume(volume) {
  player.volume = volume;
  const { engine } = player;
  if (engine) engine.volume.gain.setTargetAtTime(volume, engine.context.currentTime, 0.01);
}

/** What a person would hear, as samples: the same graph over an OfflineAudioContext.
 *  swaps: [{lane, take, frame}]; mixes: {lane: {gain, pan}} instead of the page's own. */
export async function render({ loops = 2, swaps = [], mixes = {} } = {}) {
  const { state } = store;
  const every = [...state.lanes.map((lane) => lane.active), ...swaps.map((swap) => swap.take)];
  for (const take of every) bufferOf(state, take);
  await Promise.all(every.filter(Boolean).map((take) => buffers.get(keyOf(state, take))));
  const frames = state.loop_samples;
  const context = new OfflineAudioContext(2, loops * frames, state.sample_rate);
  const engine = await Engine.build(context, { frames, bars: state.song.bars });
  applyTo(engine, state);
  for (const [lane, mix] of Object.entries(mixes)) engine.setMix(lane, mix);
  engine.start(0, 0);
  for (const { lane, take, frame } of swaps) {
    engine.setTake(lane, { id: take, buffer: bufferOf(state, take) }, frame);
  }
  const rendered = await context.startRendering();
  return { rendered, latency: engine.latency, meter: engine.meter };
}

subscribe((state) => agree(state));
