// SPDX-License-Identifier: Apache-2.0
// In the audio thread: hands over what comes in between two frames of the context's clock.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    Object.assign(this, { from: Infinity, until: Infinity });
    this.port.onmessage = ({ data }) => Object.assign(this, data);
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    let peak = 0;
    for (const value of samples) if (Math.abs(value) > peak) peak = Math.abs(value);
    const start = Math.max(0, this.from - currentFrame);
    const end = Math.min(samples.length, this.until - currentFrame);
    const piece = start < end ? samples.slice(start, end) : null;
    this.port.postMessage({ peak, piece, frame: currentFrame });
    return true;
  }
}

registerProcessor("recorder", Recorder);
