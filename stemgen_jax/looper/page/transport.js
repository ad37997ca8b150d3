// SPDX-License-Identifier: Apache-2.0
// The top of the page: play, the place in the loop, tempo and bars, the output's meter, undo.

import { byId, clamp, decibels, setText } from "./dom.js";
import { onField, setValue } from "./fields.js";
import { request } from "./api.js";
import { onPlayer, player, setVolume, toggle } from "./player.js";
import { say, settle } from "./say.js";
import { edit, send, store, subscribe } from "./store.js";
import { fit } from "./wave.js";

const SONG = { tempo: "tempo_bpm", bars: "bars", beats: "beats_per_bar", offset: "offset_s" };
const FLOOR_DB = -48;
let holds = [-Infinity, -Infinity];

const REACTION_MS = 700; // a press of Z so soon after a take has come was meant for what was before

/** Takes the last step back; a take that has come this moment stays until it is asked a second time. */
export function undo() {
  if (!store.state?.can_undo) return;
  const { arrived } = store;
  store.arrived = null;
  if (arrived && performance.now() - arrived.at < REACTION_MS) {
    say(`${arrived.words} has just come. Undo once more takes it back.`, "info", { key: "undo" });
  } else send("/api/undo").then(() => ["undo", "removed"].forEach(settle));
}

export const redo = () => store.state?.can_redo && send("/api/redo");

function update(state) {
  const { song } = state;
  const begun = state.loop_samples > 0;
  byId("song").hidden = byId("clock").hidden = byId("play").hidden = !begun;
  document.querySelector(".master").hidden = !begun;
  byId("export").hidden = !begun;
  const shown = { ...song, tempo_bpm: round(song.tempo_bpm, 2), offset_s: round(song.offset_s, 3) };
  for (const [id, field] of Object.entries(SONG)) setValue(byId(id), shown[field]);
  setValue(byId("title"), song.name || state.session);
  byId("undo").disabled = !state.can_undo;
  byId("redo").disabled = !state.can_redo;
  document.title = `${song.name || state.session} – looper`;
  if (state.notice && state.notice !== update.notice) {
    say(state.notice, state.notice_is_error ? "error" : "info");
  }
  update.notice = state.notice;
}

const round = (value, places) => Number(Number(value).toFixed(places));

async function exportZip() {
  say("The stems, the mix and the settings are packed.", "info", { key: "export", stays: true });
  try {
    const data = await (await request("/api/export.zip")).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(data);
    const name = store.state.song.name || store.state.session;
    link.download = `${name.replace(/[^\w-]+/g, "_")}.zip`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    settle("export");
    say(`${link.download} is written, ${(data.size / 1e6).toFixed(1)} MB.`);
  } catch (error) {
    settle("export");
    say(error.message, "error", { key: error.key ?? "export" });
  }
}

function drawMeter(engine) {
  const canvas = byId("meter");
  const [pen, width, height] = fit(canvas);
  if (!width) return;
  const { peaks, most, gain } = engine?.meter ?? { peaks: [0, 0], most: [0, 0], gain: 1 };
  const x = (db) => clamp(1 - db / FLOOR_DB, 0, 1) * width;
  const row = (height - 5) / 2;
  for (let c = 0; c < 2; c++) {
    const db = engine?.playing ? decibels(peaks[c]) : -Infinity;
    holds[c] = Math.max(db, holds[c] - 0.35);
    const y = c * (row + 2);
    pen.fillStyle = "rgba(255,255,255,.1)";
    pen.fillRect(0, y, width, row);
    const end = x(holds[c]);
    pen.fillStyle = "#56b4e9";
    pen.fillRect(0, y, Math.min(end, x(-9)), row);
    pen.fillStyle = "#f0e442";
    if (end > x(-9)) pen.fillRect(x(-9), y, Math.min(end, x(-3)) - x(-9), row);
    pen.fillStyle = "#d55e00";
    if (end > x(-3)) pen.fillRect(x(-3), y, end - x(-3), row);
    pen.fillStyle = "#fff";
    if (most[c] > 1e-4) pen.fillRect(Math.min(width - 2, x(decibels(most[c]))), y, 2, row);
  }
  pen.fillStyle = "#cc79a7"; // how much the limiter takes away, from the right
  const taken = clamp(-decibels(gain) / 12, 0, 1) * width;
  pen.fillRect(width - taken, height - 2, taken, 2);
  const peak = decibels(Math.max(...most));
  setText(byId("peak"), `${peak > -90 ? peak.toFixed(1) : "–∞"} dBTP`);
  byId("peak").classList.toggle("limiting", gain < 0.98);
}

/** Draws what moves; called once a frame of the screen. */
export function tickTransport() {
  const { engine } = player;
  const { state } = store;
  const playing = Boolean(engine?.playing);
  const node = byId("play");
  if (node.dataset.playing !== String(playing)) {
    node.dataset.playing = playing;
    node.setAttribute("aria-label", playing ? "Stop" : "Play");
    node.querySelector("use").setAttribute("href", playing ? "#i-stop" : "#i-play");
  }
  if (state?.loop_samples) {
    const { bars, beats_per_bar: beats } = state.song;
    const heard = playing ? engine.heard() : 0;
    const fraction = playing && heard > 0 ? (heard % engine.frames) / engine.frames : 0;
    node.style.setProperty("--turn", heard < 0 ? 0 : Math.round(fraction * 240) / 240);
    const beat = Math.floor(fraction * bars * beats + 1e-6);
    const early = heard < 0 ? Math.ceil((-heard / engine.frames) * bars * beats) : 0;
    const words = early ? `–${early}` : `${Math.floor(beat / beats) + 1}.${(beat % beats) + 1}`;
    setText(byId("place"), words);
  }
  drawMeter(engine);
}

export function startTransport() {
  subscribe(update);
  byId("play").addEventListener("click", toggle);
  byId("undo").addEventListener("click", undo);
  byId("redo").addEventListener("click", redo);
  byId("export").addEventListener("click", exportZip);
  byId("peak").addEventListener("click", () => player.engine?.resetPeaks());
  byId("song").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, field] of Object.entries(SONG)) {
    onField(byId(id), (value) => edit("set_song", { [field]: Number(value) }));
  }
  onField(byId("title"), (name) => name.trim() && edit("set_song", { name: name.trim() }));
  const scale = (by) => () => {
    const { tempo_bpm: tempo, bars } = store.state.song; // the same seconds, counted otherwise
    const fields = { tempo_bpm: tempo * by };
    if (Number.isInteger(bars * by)) fields.bars = bars * by;
    edit("set_song", fields);
  };
  byId("half").addEventListener("click", scale(0.5));
  byId("double").addEventListener("click", scale(2));
  const header = document.querySelector("header");
  new ResizeObserver(() => { // narrow screens keep the row with the play button in sight
    header.style.setProperty("--fold", `${8 - byId("play").offsetTop}px`);
  }).observe(header);
  const volume = byId("volume");
  volume.addEventListener("input", () => setVolume(Number(volume.value) ** 2));
  onPlayer((name, detail) => {
    if (name === "context" && detail !== "running" && player.engine?.playing) {
      say("The computer has stopped the sound. Press play to go on.", "info", { key: "context", stays: true });
    } else if (name === "context") settle("context");
  });
}
