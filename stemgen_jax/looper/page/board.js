// SPDX-License-Identifier: Apache-2.0
// All lanes, the rule above them, and the welcome where nothing was begun.

import { byId, clamp } from "./dom.js";
import { onField, setValue } from "./fields.js";
import { LaneView } from "./lane.js";
import { onPlayer, play, player } from "./player.js";
import { edit, selectLane, send, store, subscribe } from "./store.js";
import { drawGrid, fit } from "./wave.js";

const views = new Map(); // lane -> LaneView

export const viewOf = (lane) => views.get(lane);
export const chosen = () => views.get(store.selected);

/** Chooses the lane above or below. */
export function step(by) {
  const lanes = store.state?.lanes ?? [];
  const index = lanes.findIndex((lane) => lane.id === store.selected);
  const next = lanes[clamp(index + by, 0, lanes.length - 1)];
  if (!next) return;
  selectLane(next.id);
  views.get(next.id).node.scrollIntoView({ block: "nearest" });
}

function update(state) {
  const begun = state.loop_samples > 0;
  byId("welcome").hidden = begun;
  byId("board").hidden = !begun;
  if (!begun) {
    if (!update.offered) offer(state.song);
    return;
  }
  byId("none").hidden = state.lanes.length > 0;
  byId("add").querySelector("button").disabled = !state.can_add;
  byId("add").title = state.can_add ? "" : `There are ${state.lanes.length} lanes, which is the most.`;
  const list = byId("lanes");
  for (const [id, view] of views) {
    if (state.lanes.some((lane) => lane.id === id)) continue;
    view.node.remove();
    views.delete(id);
  }
  state.lanes.forEach((lane, index) => {
    if (!views.has(lane.id)) views.set(lane.id, new LaneView(lane.id));
    const { node } = views.get(lane.id);
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
  });
  state.lanes.forEach((lane, index) => views.get(lane.id).update(state, index));
  fillInstruments(state.model.instruments);
  drawRuler();
}

/** Fills the fields of a loop that begins with silence, once: then they are the person's. */
function offer(song) {
  const { tempo, bars, beats } = byId("way-silence").elements;
  setValue(tempo, Number(song.tempo_bpm.toFixed(2)));
  setValue(bars, song.bars);
  setValue(beats, song.beats_per_bar);
  update.offered = true;
}

function fillInstruments(names) {
  const select = byId("add-instrument");
  if (select.dataset.names === names.join()) return;
  select.dataset.names = names.join();
  select.replaceChildren(...names.map((name) => new Option(name.replaceAll("_", " "), name)));
}

function drawRuler(fraction = null) {
  const { state } = store;
  if (!state?.loop_samples) return;
  const [pen, width, height] = fit(byId("ruler"));
  drawGrid(pen, width, height, state.song);
  if (fraction === null) return;
  const beats = state.song.bars * state.song.beats_per_bar;
  const beat = Math.min(beats - 1, Math.floor(fraction * beats));
  pen.fillStyle = `rgba(255,255,255,${beat % state.song.beats_per_bar ? 0.28 : 0.5})`;
  pen.fillRect((beat * width) / beats + 1, height - 5, width / beats - 1, 5);
}

/** Draws what moves; called once a frame of the screen. */
export function tickBoard() {
  const { engine } = player;
  const playing = Boolean(engine?.playing) && store.state?.loop_samples;
  engine?.settle();
  const heard = playing ? engine.heard() : 0;
  const fraction = playing && heard >= 0 ? (heard % engine.frames) / engine.frames : 0;
  for (const view of views.values()) view.tick(engine, fraction);
  const beat = playing ? Math.floor(fraction * 256) : null;
  if (beat !== tickBoard.beat) {
    tickBoard.beat = beat;
    drawRuler(playing ? fraction : null);
  }
}

export function startBoard() {
  subscribe(update);
  onPlayer((name) => {
    if (name !== "context") for (const view of views.values()) view.draw();
  });
  new ResizeObserver(() => {
    for (const view of views.values()) view.draw();
    drawRuler();
  }).observe(byId("board"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawRuler());

  const ruler = byId("ruler");
  const goTo = (bar) => {
    const { state } = store;
    const at = clamp(bar, 0, state.song.bars - 1);
    ruler.setAttribute("aria-valuenow", at + 1);
    play(Math.round((at * state.loop_samples) / state.song.bars));
  };
  subscribe(({ song }) => {
    ruler.setAttribute("aria-valuemax", song.bars);
    if (ruler.getAttribute("aria-valuenow") > song.bars) ruler.setAttribute("aria-valuenow", 1);
  });
  ruler.addEventListener("click", (event) => {
    const box = ruler.getBoundingClientRect();
    goTo(Math.floor(((event.clientX - box.left) / box.width) * store.state.song.bars));
  });
  ruler.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    goTo(Number(ruler.getAttribute("aria-valuenow")) - 1 + move);
  });
  byId("add").addEventListener("submit", (event) => {
    event.preventDefault();
    edit("add_lane", { instrument: byId("add-instrument").value });
  });
  for (const field of byId("way-silence").querySelectorAll("input")) onField(field, () => {});
  byId("way-silence").addEventListener("submit", (event) => {
    event.preventDefault();
    const { tempo, bars, beats } = event.target.elements;
    edit("set_song", {
      tempo_bpm: Number(tempo.value), bars: Number(bars.value), beats_per_bar: Number(beats.value),
    });
  });
  byId("way-example").addEventListener("click", () => send("/api/example"));
}
