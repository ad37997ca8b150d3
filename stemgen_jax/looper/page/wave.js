// SPDX-License-Identifier: Apache-2.0
// Pictures of a loop: its waveform, its bars, where notes begin, what is kept, what will come.

export const COLOURS = [ // Okabe and Ito's, which colour-blind people tell apart
  ["#e69f00", "#111"], ["#56b4e9", "#111"], ["#009e73", "#111"], ["#f0e442", "#111"],
  ["#d55e00", "#111"], ["#cc79a7", "#111"], ["#0072b2", "#fff"], ["#c4c4c4", "#111"],
];
const ON_GRID_S = 0.03; // a note nearer to a sixteenth than this counts as on it
const shapes = new WeakMap(); // AudioBuffer -> {width, columns}

/** Fits a canvas to its place in the screen's own pixels; returns [context, width, height]. */
export function fit(canvas) {
  const scale = Math.min(3, window.devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth), height = Math.round(canvas.clientHeight);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return [pen, width, height];
}

/** The least, the greatest and the root mean square of each of `width` parts of a sound. */
function columnsOf(buffer, width) {
  const known = shapes.get(buffer);
  if (known?.width === width) return known;
  const [low, high, rms] = [0, 1, 2].map(() => new Float32Array(width));
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    const samples = buffer.getChannelData(c);
    for (let x = 0; x < width; x++) {
      const end = Math.floor(((x + 1) * samples.length) / width);
      let sum = 0, count = 0;
      for (let i = Math.floor((x * samples.length) / width); i < end; i++, count++) {
        const value = samples[i];
        if (value < low[x]) low[x] = value;
        if (value > high[x]) high[x] = value;
        sum += value * value;
      }
      rms[x] = Math.max(rms[x], Math.sqrt(sum / Math.max(1, count)));
    }
  }
  const made = { width, low, high, rms };
  shapes.set(buffer, made);
  return made;
}

// Loudness on the screen: the square root lets quiet notes be seen.
const bend = (value) => Math.sign(value) * Math.sqrt(Math.abs(value));

function fillShape(pen, width, middle, reach, upper, lower) {
  pen.beginPath();
  for (let x = 0; x < width; x++) pen.lineTo(x, middle - Math.max(0.5, bend(upper(x)) * reach));
  for (let x = width - 1; x >= 0; x--) {
    pen.lineTo(x, middle + Math.max(0.5, -bend(lower(x)) * reach));
  }
  pen.closePath();
}

export function drawGrid(pen, width, height, song, numbers = true) {
  const beats = song.bars * song.beats_per_bar;
  for (let beat = 0; beat < beats; beat++) {
    const x = Math.round((beat * width) / beats), bar = beat % song.beats_per_bar === 0;
    if (!bar && width / beats < 7) continue;
    pen.fillStyle = bar ? "rgba(255,255,255,.2)" : "rgba(255,255,255,.075)";
    pen.fillRect(x, 0, 1, height);
    if (bar && numbers && width / song.bars > 34) {
      pen.fillStyle = "rgba(255,255,255,.5)";
      pen.font = "600 10px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
      pen.fillText(beat / song.beats_per_bar + 1, x + 5, 12);
    }
  }
}

/** How far each note is from the nearest sixteenth, in seconds; above 0 is late. */
export function lateness(onsets, { beat, loop }) {
  const step = beat / 4;
  return onsets.filter((at) => at < loop).map((at) => at - Math.round(at / step) * step);
}

function drawOnsets(pen, width, height, onsets, lengths, colour) {
  const late = lateness(onsets, lengths);
  onsets.filter((at) => at < lengths.loop).forEach((at, i) => {
    const x = (at / lengths.loop) * width, y = height - 7;
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 1.5;
    pen.beginPath();
    if (Math.abs(late[i]) <= ON_GRID_S) { // a filled diamond on the grid, a ring beside it
      pen.moveTo(x, y - 4);
      pen.lineTo(x + 4, y);
      pen.lineTo(x, y + 4);
      pen.lineTo(x - 4, y);
      pen.fill();
    } else {
      pen.arc(x, y, 3, 0, 2 * Math.PI);
      pen.stroke();
    }
  });
}

/** Words for the same: "24 of 31 notes on the grid". */
export function gridWords(onsets, lengths) {
  const late = lateness(onsets, lengths);
  if (!late.length) return "no notes found";
  const on = late.filter((value) => Math.abs(value) <= ON_GRID_S).length;
  return `${on} of ${late.length} notes on the grid`;
}

/** Draws a lane: buffer, onsets, coming {buffer, from (0 to 1)}, keep [[s, s]], colour, dim. */
export function drawWave(canvas, song, lengths, what) {
  const [pen, width, height] = fit(canvas);
  if (!width) return;
  const middle = (height - 10) / 2, reach = middle - 4;
  drawGrid(pen, width, height, song, false);
  if (what.buffer) {
    const { low, high, rms } = columnsOf(what.buffer, width);
    pen.globalAlpha = what.dim ? 0.3 : 1;
    pen.fillStyle = what.colour;
    const before = pen.globalAlpha;
    pen.globalAlpha = before * 0.45;
    fillShape(pen, width, middle, reach, (x) => high[x], (x) => low[x]);
    pen.fill();
    pen.globalAlpha = before;
    fillShape(pen, width, middle, reach, (x) => rms[x], (x) => -rms[x]);
    pen.fill();
    pen.globalAlpha = 1;
  } else {
    pen.fillStyle = "rgba(255,255,255,.16)";
    pen.fillRect(0, middle - 0.5, width, 1);
  }
  if (what.onsets) drawOnsets(pen, width, height, what.onsets, lengths, what.colour);
  if (what.coming) drawComing(pen, width, height, middle, reach, what.coming);
  if (what.keep.length) drawKeep(pen, width, height, lengths, what);
}

function drawComing(pen, width, height, middle, reach, { buffer, from }) {
  const x = from * width;
  if (buffer) {
    const { low, high } = columnsOf(buffer, width);
    fillShape(pen, width, middle, reach, (i) => high[i], (i) => low[i]);
    pen.strokeStyle = "rgba(255,255,255,.75)";
    pen.lineWidth = 1;
    pen.stroke();
  }
  pen.fillStyle = "#fff";
  pen.fillRect(x - 1, 0, 2, height);
  pen.beginPath();
  pen.moveTo(x + 1, 0);
  pen.lineTo(x + 9, 5);
  pen.lineTo(x + 1, 10);
  pen.fill();
}

function drawKeep(pen, width, height, { loop }, { keep, colour }) {
  const edges = keep.map(([start, end]) => [(start / loop) * width, (end / loop) * width]);
  let from = 0;
  pen.save();
  pen.beginPath();
  for (const [start, end] of [...edges, [width, width]]) { // what lies between is written anew
    pen.rect(from, 0, start - from, height);
    from = end;
  }
  pen.clip();
  pen.fillStyle = "rgba(12,13,16,.72)";
  pen.fillRect(0, 0, width, height);
  pen.strokeStyle = "rgba(255,255,255,.16)";
  pen.lineWidth = 1;
  pen.beginPath();
  for (let x = -height; x < width; x += 9) {
    pen.moveTo(x, height);
    pen.lineTo(x + height, 0);
  }
  pen.stroke();
  pen.restore();
  for (const [start, end] of edges) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.strokeRect(start + 1, 1, end - start - 2, height - 2);
  }
}
