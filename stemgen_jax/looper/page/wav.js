// SPDX-License-Identifier: Apache-2.0
// A WAV file of 32-bit floats.

/** The bytes of one channel of samples. */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 4 * samples.length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 4 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true); // floats
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 4 * rate, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 32, true);
  text(36, "data");
  view.setUint32(40, 4 * samples.length, true);
  new Float32Array(view.buffer, 44).set(samples);
  return new Blob([view.buffer], { type: "audio/wav" });
}
