// SPDX-License-Identifier: Apache-2.0
// Recording: in time with the loop, with the way through speakers and microphone subtracted.
//
// What the computer itself tells is the output's latency and the input's; a person may correct it,
// or have it measured: clicks go out by the speakers and come back by the microphone.

import { byId, clamp, decibels, recall, remember, setText } from "./dom.js";
import { onField, setValue } from "./fields.js";
import { send } from "./files.js";
import { ensureEngine, play, player, stop } from "./player.js";
import { announce, say, settle } from "./say.js";
import { lengths, store } from "./store.js";
import { encodeWav } from "./wav.js";
import { fit } from "./wave.js";

const TAIL_S = 0.05; // beyond the loop's end and the latency
const MOST_S = 600;
const CLICKS = 5, CLICK_S = 0.4;
const KEY = "looper-latency-ms";
const REFUSED = "The browser gives no microphone. Allow it here, or plug one in; try again.";
let ownLatency = false; // a person has set it, or had it measured
let mic = null; // {stream, source, node, pieces, level}

const dialog = () => byId("record-dialog");

async function openMicrophone() {
  const engine = await ensureEngine();
  const { context } = engine;
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  await context.audioWorklet.addModule(new URL("./recorder.js", import.meta.url));
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "recorder", {
    channelCount: 1, channelCountMode: "explicit", numberOfOutputs: 1,
  });
  const quiet = context.createGain();
  quiet.gain.value = 0;
  source.connect(node).connect(quiet).connect(context.destination);
  mic = { stream, source, node, quiet, pieces: [], level: 0, state: "open", engine };
  node.port.onmessage = ({ data: { peak, piece, frame } }) => {
    if (!mic) return;
    mic.level = Math.max(peak, mic.level * 0.9);
    mic.frame = frame;
    if (piece) mic.pieces.push(piece);
    if (mic.until && frame >= mic.until) mic.whole();
  };
  return mic;
}

function closeMicrophone() {
  if (!mic) return;
  for (const track of mic.stream.getTracks()) track.stop();
  mic.source.disconnect();
  mic.quiet.disconnect();
  mic = null;
}

/** What the browser tells of the way out and in, in seconds. */
function estimate() {
  const { context, latency, rate } = player.engine;
  const out = (context.outputLatency || context.baseLatency || 0) + latency / rate;
  const told = mic?.stream.getAudioTracks()[0]?.getSettings().latency;
  const within = Number.isFinite(told) ? told : context.baseLatency || 0.01;
  return { out, within, whole: out + within };
}

function showEstimate() {
  const { out, within, whole } = estimate();
  const kept = Number(recall(KEY) ?? NaN);
  if (!ownLatency) {
    setValue(byId("latency"), Math.round(kept > 0 ? kept : clamp(whole * 1000, 0, 1000)));
  }
  const ms = (value) => `${Math.round(value * 1000)} ms`;
  const told = `The computer tells ${ms(out)} on the way out and ${ms(within)} on the way in; `;
  setText(byId("latency-words"), told
    + "this much is cut from a recording's start. Late in the loop? Give more. Early? Less.");
}

/** Collects the frames [from, until) of what the microphone hears. */
function collect(from, until) {
  const own = mic;
  own.pieces = [];
  own.until = until;
  own.node.port.postMessage({ from, until });
  return new Promise((resolve) => {
    own.whole = () => {
      own.until = null;
      own.node.port.postMessage({ from: Infinity, until: Infinity });
      const samples = new Float32Array(own.pieces.reduce((sum, piece) => sum + piece.length, 0));
      let at = 0;
      for (const piece of own.pieces) {
        samples.set(piece, at);
        at += piece.length;
      }
      resolve(samples);
    };
  });
}

/** How long a click takes from speaker to microphone: the median of five that agree. */
async function measure() {
  const { engine } = mic;
  const { rate } = engine;
  stop();
  const first = engine.now() + Math.round(0.3 * rate), step = Math.round(CLICK_S * rate);
  for (let i = 0; i < CLICKS; i++) engine.click(first + i * step, true, 0.02);
  const words = (text) => setText(byId("record-words"), text);
  words("Five clicks sound. Keep quiet, with the microphone near the speaker.");
  const samples = await collect(first, first + CLICKS * step);
  const found = [];
  for (let i = 0; i < CLICKS; i++) {
    const piece = samples.subarray(i * step, (i + 1) * step);
    let peak = 0;
    for (const value of piece) peak = Math.max(peak, Math.abs(value));
    if (peak > 0.02) found.push(piece.findIndex((value) => Math.abs(value) > 0.4 * peak) / rate);
  }
  found.sort((a, b) => a - b);
  const middle = found[Math.floor(found.length / 2)];
  const agree = found.filter((value) => Math.abs(value - middle) < 0.004).length;
  if (agree < 3) {
    words("The clicks were not heard clearly.");
    say("Bring the microphone nearer to the speaker, and measure again.", "error", { key: "mic" });
    return;
  }
  const ms = Math.round(middle * 1000);
  settle("mic");
  keepLatency(ms);
  words(`Measured ${ms} ms, ${agree} of ${CLICKS} clicks agree.`);
  announce(`Measured: ${ms} milliseconds.`);
}

function keepLatency(ms) {
  setValue(byId("latency"), ms);
  ownLatency = true;
  remember(KEY, ms);
}

async function recordLoop() {
  const { engine } = mic;
  const latency = Number(byId("latency").value) / 1000;
  const { bar } = lengths(store.state);
  let start;
  if (engine.playing) start = engine.nextLoop(0.3);
  else {
    start = await play(0, Math.round(bar * engine.rate)); // a bar is counted in
    const beats = store.state.song.beats_per_bar;
    for (let i = 0; i < beats; i++) {
      engine.click(start - Math.round(((beats - i) * bar * engine.rate) / beats), i === 0);
    }
  }
  mic.start = start;
  const length = engine.frames + Math.round((latency + TAIL_S) * engine.rate);
  return [await collect(start, start + length), latency];
}

async function recordFree() {
  const { engine } = mic;
  mic.start = engine.now() + 256;
  return [await collect(mic.start, mic.start + MOST_S * engine.rate), 0];
}

function offerStart() {
  setText(byId("record-start"), "Start recording");
  byId("record-close").hidden = false;
}

async function startRecording() {
  if (mic.state === "recording") { // only a free one is ended by hand
    mic.whole();
    return;
  }
  const own = mic, { rate } = mic.engine;
  own.state = "recording";
  const looped = store.state.loop_samples > 0;
  setText(byId("record-start"), looped ? "Cancel" : "Stop and use it");
  byId("record-close").hidden = looped; // one way out is enough
  const [samples, latency] = await (looped ? recordLoop() : recordFree());
  if (own !== mic || own.state !== "recording") return;
  own.state = "open";
  offerStart();
  const lane = byId("record-lane").value;
  const more = { latency_s: latency.toFixed(4) };
  const done = await send(encodeWav(samples, rate), "recording", lane, more);
  if (done) closeRecorder();
}

function tick() {
  if (!mic || !dialog().open) return;
  const [pen, width, height] = fit(byId("record-level"));
  pen.fillStyle = "#56b4e9";
  pen.fillRect(0, 0, clamp(1 + decibels(mic.level) / 60, 0, 1) * width, height);
  if (mic.state === "recording" && mic.start) {
    const { engine } = mic;
    const time = (engine.now() - mic.start) / engine.rate;
    const whole = store.state.loop_samples ? engine.frames / engine.rate : null;
    const left = whole && Math.max(0, whole - time).toFixed(1);
    const words = time < 0 ? `Begins in ${(-time).toFixed(1)} s.`
      : whole ? `Recording: ${left} s of the loop are left.` : `Recording: ${time.toFixed(1)} s.`;
    setText(byId("record-words"), words);
  }
  requestAnimationFrame(tick);
}

export async function openRecorder(lane = null) {
  if (dialog().open || !store.state) return;
  const options = store.state.lanes.map((one) => new Option(one.name, one.id));
  byId("record-lane").replaceChildren(...options, new Option("a new lane", "new"));
  const empty = store.state.lanes.find((one) => !one.active);
  const looped = store.state.loop_samples > 0;
  byId("record-lane").value = looped ? lane ?? empty?.id ?? "new" : "new";
  setText(byId("record-words"), looped
    ? "It begins with the loop and takes one time through it. Headphones keep the loop out of it."
    : "Play as long as you like, then stop. Tempo and bars are found in it.");
  offerStart();
  dialog().showModal();
  try {
    await openMicrophone();
    settle("mic");
    showEstimate();
    tick();
  } catch (error) {
    dialog().close();
    closeMicrophone();
    const refused = error.name === "NotAllowedError" || error.name === "NotFoundError";
    const words = refused ? REFUSED : `The microphone cannot be used (${error.message}).`;
    say(words, "error", { key: "mic" });
  }
}

function closeRecorder() {
  if (mic) mic.state = "closed";
  closeMicrophone();
  if (dialog().open) dialog().close();
}

export function startRecorder() {
  byId("record").addEventListener("click", () => openRecorder());
  byId("way-record").addEventListener("click", () => openRecorder());
  byId("record-close").addEventListener("click", closeRecorder);
  dialog().addEventListener("close", closeRecorder);
  onField(byId("latency"), (ms) => keepLatency(Number(ms)));
  byId("latency-measure").addEventListener("click", () => mic?.state === "open" && measure());
  byId("record-start").addEventListener("click", () => {
    if (!mic) return;
    if (mic.state === "recording" && store.state.loop_samples) closeRecorder();
    else startRecording();
  });
}
