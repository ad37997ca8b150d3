// SPDX-License-Identifier: Apache-2.0
// One lane: what it shows, and what a touch of it does.

import { url } from "./api.js";
import { byId, decibels, press, setText } from "./dom.js";
import { onField, setValue } from "./fields.js";
import { cancelLane, jobOf, jobWords, timingOf, write } from "./jobs.js";
import { letMark } from "./keep.js";
import { chooseFile } from "./files.js";
import { bufferOf, mixOf, onsetsOf, player } from "./player.js";
import { say } from "./say.js";
import {
  chooseTake, edit, laneOf, lengths, placeName, selectLane, setLane, store,
} from "./store.js";
import { showTakes, tellTake } from "./takes.js";
import { COLOURS, drawWave, gridWords } from "./wave.js";

const SIDE = (pan) => `${Math.round(Math.abs(pan) * 100)} ${pan < 0 ? "L" : "R"}`;
const PAN_WORDS = (pan) => (pan ? SIDE(pan) : "C");
const LEVEL_WORDS = (db) => (db <= -60 ? "silent" : `${db > 0 ? "+" : ""}${db.toFixed(1)} dB`);

export class LaneView {
  constructor(id) {
    this.id = id;
    this.keep = [];
    this.spectrum = false;
    this.node = byId("lane-template").content.firstElementChild.cloneNode(true);
    this.node.dataset.lane = id;
    this.at = (name) => this.node.querySelector(`.${name}`);
    this.samples = new Float32Array(1024);
    this.vu = 0;
    this.#wire();
  }

  get lane() {
    return laneOf(this.id);
  }

  /** Asks the model; what is marked stays. */
  write(kind) {
    const more = {};
    if (kind === "vary") more.amount = Number(this.at("amount").querySelector("input").value) / 100;
    if (kind !== "generate" && !this.lane?.active) kind = "generate";
    if (this.keep.length && kind !== "vary") more.keep = this.keep;
    write(this.id, kind, more);
  }

  cycleTake() {
    const { takes, active } = this.lane;
    if (!takes.length) return;
    const next = takes[(takes.findIndex((take) => take.id === active) + 1) % takes.length];
    chooseTake(this.id, next.id);
  }

  unmark() {
    const had = this.keep.length > 0;
    this.keep = [];
    this.draw();
    return had;
  }

  #wire() {
    const { at } = this;
    const click = (name, act) => at(name).addEventListener("click", act);
    for (const event of ["pointerdown", "focusin"]) {
      this.node.addEventListener(event, () => selectLane(this.id));
    }
    const flip = (field) => () => setLane(this.id, { [field]: !this.lane[field] });
    for (const field of ["mute", "solo", "lock"]) click(field, flip(field));
    click("remove", () => edit("remove_lane", { lane: this.id }).then((done) => {
      if (done) say("The lane is removed. Z brings it back.", "info", { key: "removed" });
    }));
    click("load", () => chooseFile(this.id));
    onField(at("name"), (name) => setLane(this.id, { name: name.trim() || this.lane.instrument }));
    onField(at("instrument"), (instrument) => setLane(this.id, { instrument }));
    const slide = (name, field, words, moving = () => {}) => {
      const [input, output] = at(name).querySelectorAll("input, output");
      const live = (value) => {
        output.textContent = words(Number(value));
        moving(Number(value));
      };
      onField(input, (value) => setLane(this.id, { [field]: Number(value) }), live);
      if (field === "guidance") return;
      input.addEventListener("dblclick", () => setLane(this.id, { [field]: 0 }));
    };
    const hear = (fields) => {
      const mix = mixOf(store.state, { ...this.lane, ...fields });
      player.engine?.setMix(this.id, mix);
    };
    slide("level", "level_db", LEVEL_WORDS, (level_db) => hear({ level_db }));
    slide("pan", "pan", PAN_WORDS, (pan) => hear({ pan }));
    slide("guidance", "guidance", (value) => value.toFixed(2));
    const [amount, amountWords] = at("amount").querySelectorAll("input, output");
    amount.addEventListener("input", () => {
      amountWords.textContent = `${amount.value} %`;
      this.draw();
    });
    onField(at("seed").querySelector("input"), (seed) => setLane(this.id, { seed: Number(seed) }));
    click("generate", () => this.write("generate"));
    click("another", () => this.write("another"));
    click("vary", () => this.write("vary"));
    click("unmark", () => this.unmark());
    click("cancel", () => cancelLane(this.id));
    click("about", () => tellTake(this.lane));
    click("spectrum", () => {
      this.spectrum = !this.spectrum;
      this.draw();
    });
    letMark(at("screen"), {
      parts: () => this.keep,
      set: (parts) => {
        this.keep = parts;
        this.draw();
      },
      allowed: () => Boolean(this.lane?.active),
    });
  }

  update(state, index) {
    const { lane, at } = this;
    if (!lane) return;
    const [colour, ink] = COLOURS[index % COLOURS.length];
    this.colour = colour;
    this.node.style.setProperty("--lane", colour);
    this.node.style.setProperty("--ink", ink);
    this.node.classList.toggle("chosen", store.selected === this.id);
    this.node.classList.toggle("silent", mixOf(state, lane).gain === 0);
    this.node.classList.toggle("locked", lane.lock);
    this.node.setAttribute("aria-label", `Lane ${index + 1}: ${lane.name}`);
    setText(at("badge"), index + 1);
    setValue(at("name"), lane.name);
    this.#fillInstruments(state, lane);
    for (const field of ["mute", "solo", "lock"]) press(at(field), lane[field]);
    this.#label(lane, index);
    const level = at("level").querySelector("input");
    setValue(level, lane.level_db);
    setValue(at("pan").querySelector("input"), lane.pan);
    setValue(at("guidance").querySelector("input"), lane.guidance);
    setValue(at("seed").querySelector("input"), lane.seed);
    const shown = (name, words) => {
      const [input, output] = at(name).querySelectorAll("input, output");
      setText(output, words(Number(input.value)));
      input.setAttribute("aria-valuetext", words(Number(input.value)));
    };
    shown("level", LEVEL_WORDS);
    shown("pan", PAN_WORDS);
    shown("guidance", (value) => value.toFixed(2));
    showTakes(this, lane);
    this.#updateJob(state, lane);
    if (this.marked !== lane.active) this.keep = [];
    this.marked = lane.active;
    this.draw();
  }

  #label(lane, index) {
    if (this.labelled === lane.name + index) return;
    this.labelled = lane.name + index;
    const { name } = lane;
    const words = {
      name: `Name of lane ${index + 1}`, instrument: `Instrument of ${name}`, mute: `Mute ${name}`,
      solo: `Only ${name}`, lock: `Lock ${name}: nothing is written over it`,
      load: `Open a sound in ${name}`,
      remove: `Remove ${name}`, switches: `${name}: what is heard`, choices: `Takes of ${name}`,
      vary: `Vary ${name}`, another: `Another take of ${name}`, cancel: `Cancel ${name}`,
      spectrum: `Spectrogram of ${name}`, about: `About this take of ${name}`,
    };
    for (const [part, label] of Object.entries(words)) {
      this.at(part).setAttribute("aria-label", label);
    }
    for (const part of ["mute", "solo", "lock", "load", "remove", "spectrum", "about"]) {
      this.at(part).title = words[part];
    }
    if (index < 9) this.at("mute").setAttribute("aria-keyshortcuts", String(index + 1));
    const screen = "waveform. Arrow keys mark beats that stay, with Shift more of them";
    this.at("guidance").title = "How closely it follows what it hears: more on the right";
    const amount = this.at("amount").querySelector("input");
    amount.setAttribute("aria-label", `How much of ${name} is varied`);
    this.at("screen").setAttribute("aria-label", `${name}: ${screen}`);
  }

  #fillInstruments({ model }, lane) {
    const names = [...new Set([...model.instruments, lane.instrument])];
    const select = this.at("instrument");
    if (select.dataset.names !== names.join()) {
      select.replaceChildren(...names.map((name) => new Option(name.replaceAll("_", " "), name)));
      select.dataset.names = names.join();
    }
    setValue(select, lane.instrument);
  }

  #updateJob(state, lane) {
    const entry = jobOf(state, lane.id);
    const { at } = this;
    this.node.classList.toggle("working", Boolean(entry));
    const done = entry?.status === "running" ? entry.progress ?? 0 : 0;
    at("generate").style.setProperty("--done", done);
    this.#nameWriting(state, lane);
    at("cancel").hidden = !entry;
    at("writing").hidden = !entry;
    at("writing").style.setProperty("--done", done);
    for (const kind of ["another", "vary"]) at(kind).disabled = lane.lock || !lane.active;
    for (const kind of ["load", "remove"]) at(kind).disabled = lane.lock;
  }

  /** Says on the button that writes what a press would do, or what is being done. */
  #nameWriting(state, lane) {
    const entry = jobOf(state, lane.id);
    const verb = this.keep.length ? "Write the rest" : "Generate";
    setText(this.at("words"), entry ? jobWords(state, entry) : lane.lock ? "Locked" : verb);
    this.at("generate").setAttribute("aria-label", `${this.at("words").textContent}: ${lane.name}`);
  }

  /** Draws the picture anew: after a change, or when the width is another. */
  draw() {
    const { state } = store;
    const { lane, at } = this;
    if (!lane || !state.loop_samples) return;
    const loop = lengths(state);
    const buffer = bufferOf(state, lane.active);
    const onsets = onsetsOf(lane.active);
    const coming = this.#coming(state);
    drawWave(at("wave"), state.song, loop, {
      buffer: coming ? coming.before : buffer,
      onsets, coming, keep: this.keep, colour: this.colour,
      dim: this.node.classList.contains("silent"),
    });
    const hint = !lane.active
      ? "Empty. Generate writes it to what plays." : buffer ? "" : "Loading the take …";
    setText(at("hint"), jobOf(state, lane.id) ? "" : hint);
    at("keeping").hidden = !this.keep.length;
    const kept = this.keep.map((p) => p.map((place) => placeName(state, place)).join(" to "));
    setText(at("kept"), kept.length ? `Stays: ${kept.join("; ")}` : "");
    const told = onsets && lane.active && !this.keep.length;
    setText(at("onsets"), told ? gridWords(onsets, loop) : "");
    this.#nameWriting(state, lane);
    this.#drawSpectrum(lane);
  }

  #drawSpectrum(lane) {
    const image = this.at("spectrogram"), shown = this.spectrum && Boolean(lane.active);
    press(this.at("spectrum"), shown);
    this.node.classList.toggle("spectral", shown);
    image.hidden = !shown;
    if (shown && image.dataset.take !== lane.active) {
      image.dataset.take = lane.active;
      image.src = url(`/api/spectrogram/${lane.active}.png`);
    }
  }

  #coming(state) {
    const strip = player.engine?.playing ? player.engine.lanes.get(this.id) : null;
    if (!strip?.next?.id || !strip.take) return null;
    const place = (strip.next.from - player.engine.origin) % player.engine.frames;
    const from = place / player.engine.frames;
    return { buffer: strip.take.buffer, from, before: strip.voice?.source.buffer ?? null };
  }

  #showLevel(strip, playing) {
    let peak = 0;
    if (strip && playing) {
      strip.meter.getFloatTimeDomainData(this.samples);
      for (const value of this.samples) if (Math.abs(value) > peak) peak = Math.abs(value);
    }
    this.vu = Math.max(peak, this.vu * 0.8);
    const shown = Math.max(0, 1 + decibels(this.vu) / 48);
    this.at("vu").style.transform = `scaleX(${Math.min(1, shown).toFixed(2)})`;
  }

  /** Each frame of the screen: the playhead, the level, the time until the next take. */
  tick(engine, fraction) {
    const { at } = this;
    const strip = engine?.lanes.get(this.id);
    const head = at("playhead");
    head.style.opacity = engine?.playing ? 1 : 0;
    head.style.transform = `translateX(${fraction * at("screen").clientWidth}px)`;
    this.late = !this.late;
    if (this.late || !engine?.playing) this.#showLevel(strip, engine?.playing);
    const next = engine?.playing ? strip?.next : null;
    const left = next ? (next.from - engine.now()) / engine.rate : 0;
    const take = next && this.lane?.takes.find((one) => one.id === next.id);
    setText(at("coming"), take && left > 0 ? `${take.label} comes in ${left.toFixed(1)} s` : "");
    setText(at("timing"), timingOf(this.id));
    if ((next?.from ?? null) !== this.nextFrom) {
      this.nextFrom = next?.from ?? null;
      this.draw();
    }
  }
}
