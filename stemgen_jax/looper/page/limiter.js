// SPDX-License-Identifier: Apache-2.0
// A look-ahead limiter and a true-peak meter, in the audio thread.
//
// The gain at each sample is a moving average, over `attack` frames, of a gain that is never above
// what any sample in a window around it allows; so no sample that leaves is above the ceiling, and
// nothing has to be clipped. Where nothing is too loud the gain is exactly 1: samples leave as they
// came, `attack + MARGIN` frames later. Peaks between samples are found by the four-phase filter of
// ITU-R BS.1770-4, annex 2.

const HALF = [
  [0.001708984375, 0.010986328125, -0.0196533203125, 0.033203125, -0.0594482421875,
    0.1373291015625, 0.97216796875, -0.102294921875, 0.047607421875, -0.026611328125,
    0.014892578125, -0.00830078125],
  [-0.0291748046875, 0.029296875, -0.0517578125, 0.089111328125, -0.16650390625, 0.465087890625,
    0.77978515625, -0.2003173828125, 0.1015625, -0.0582275390625, 0.0330810546875,
    -0.0189208984375],
];
const PHASES = [...HALF, [...HALF[1]].reverse(), [...HALF[0]].reverse()];
const TAPS = 12;
const MARGIN = 8; // frames, for the filter's delay; engine.js has the same number
const REPORT_S = 0.04;

class PeakFinder {
  constructor() {
    this.past = new Float64Array(2 * TAPS); // twice, so that a window is always in one piece
    this.at = 0;
  }

  /** The largest of a sample and of the curve through its neighbours. */
  push(sample) {
    this.past[this.at] = this.past[this.at + TAPS] = sample;
    this.at = (this.at + 1) % TAPS;
    let peak = Math.abs(sample);
    for (const phase of PHASES) {
      let sum = 0;
      for (let k = 0; k < TAPS; k++) sum += phase[k] * this.past[this.at + TAPS - 1 - k];
      if (sum > peak) peak = sum;
      else if (-sum > peak) peak = -sum;
    }
    return peak;
  }
}

class Limiter extends AudioWorkletProcessor {
  constructor({ processorOptions: { attack, ceiling } }) {
    super();
    Object.assign(this, { attack, ceiling, frame: 0, gain: 1 });
    this.delay = attack + MARGIN;
    this.window = this.delay + 1;
    this.lines = [new Float32Array(this.delay), new Float32Array(this.delay)];
    this.coming = [new PeakFinder(), new PeakFinder()];
    this.leaving = [new PeakFinder(), new PeakFinder()];
    this.needs = new Float64Array(this.window); // a queue of falling needs, oldest and least first
    this.needAt = new Float64Array(this.window);
    this.first = this.count = 0;
    this.held = new Float64Array(attack).fill(1); // what the average is of
    this.sum = attack;
    this.below = 0; // how many of them are below 1
    this.release = 1 - Math.exp(-1 / (0.12 * sampleRate));
    this.clear();
    this.port.onmessage = () => { this.most = [0, 0]; };
    this.most = [0, 0];
  }

  clear() {
    this.peaks = [0, 0];
    this.least = 1;
    this.since = 0;
  }

  /** The least need within the window that ends here. */
  minimum(need) {
    const { window, needs, needAt } = this;
    while (this.count && needs[(this.first + this.count - 1) % window] >= need) this.count--;
    if (this.count && needAt[this.first] <= this.frame - window) {
      this.first = (this.first + 1) % window;
      this.count--;
    }
    const at = (this.first + this.count++) % window;
    needs[at] = need;
    needAt[at] = this.frame;
    return needs[this.first];
  }

  average(least) {
    let gain = Math.min(least, this.gain + (1 - this.gain) * this.release);
    if (gain > 0.9999 && least === 1) gain = 1;
    this.gain = gain;
    const at = this.frame % this.attack;
    const old = this.held[at];
    this.held[at] = gain;
    this.below += (gain < 1) - (old < 1);
    this.sum = this.below ? this.sum + gain - old : this.attack;
    return this.sum / this.attack;
  }

  process([input], [output]) {
    const frames = output[0].length;
    const sources = [input[0], input[1] ?? input[0]];
    for (let i = 0; i < frames; i++, this.frame++) {
      const left = sources[0] ? sources[0][i] : 0, right = sources[1] ? sources[1][i] : 0;
      const peak = Math.max(this.coming[0].push(left), this.coming[1].push(right));
      const gain = this.average(this.minimum(peak > this.ceiling ? this.ceiling / peak : 1));
      if (gain < this.least) this.least = gain;
      const at = this.frame % this.delay;
      for (let c = 0; c < 2; c++) {
        const sample = this.lines[c][at] * gain;
        this.lines[c][at] = c ? right : left;
        output[c][i] = sample;
        const found = this.leaving[c].push(sample);
        if (found > this.peaks[c]) this.peaks[c] = found;
      }
    }
    this.since += frames;
    if (this.since > REPORT_S * sampleRate) this.report();
    return true;
  }

  report() {
    for (let c = 0; c < 2; c++) this.most[c] = Math.max(this.most[c], this.peaks[c]);
    this.port.postMessage({ peaks: this.peaks, most: [...this.most], gain: this.least });
    this.clear();
  }
}

registerProcessor("limiter", Limiter);
