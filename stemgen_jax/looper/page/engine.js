// SPDX-License-Identifier: Apache-2.0
// The sound: one graph over any BaseAudioContext, so that a test renders what a person hears.
//
//   each take: source (loops) > fade > pan \
//   each take: source (loops) > fade > pan  > the lane's level > bus > gate > limiter > volume
//
// Every time is a whole frame of the context's clock. A lane's takes all run in step: a source that
// begins later begins at the place where the loop then is. A loop that is given another length plays
// on as it was until the next bar; `turn` holds what it then becomes.

export const FADE_S = 0.012; // of one take into the next
const GATE_S = 0.002; // of play
const STOP_S = 0.02;
const NEVER_S = 1e7; // of the context's clock
const LEAD_S = 0.25; // how far ahead anything is asked for: it is seen before it is heard
const SMOOTH_S = 0.012; // of levels
const ATTACK_S = 0.003, MARGIN = 8; // of the limiter
const CEILING = 10 ** (-1 / 20); // -1 dBTP

const curve = (shape) => Float32Array.from({ length: 65 }, (_, i) => shape((i / 128) * Math.PI));
const RISE = curve(Math.sin), FALL = curve(Math.cos);

export class Engine {
  /** One for a context, of which the limiter's module is loaded first. */
  static async build(context, loop) {
    await context.audioWorklet.addModule(new URL("./limiter.js", import.meta.url));
    return new Engine(context, loop);
  }

  constructor(context, { frames, bars }) {
    Object.assign(this, { context, frames, bars, playing: false, origin: 0, lanes: new Map() });
    this.turn = null; // {from, frames, bars, origin}
    this.rate = context.sampleRate;
    this.bus = context.createGain();
    this.gate = context.createGain();
    this.gate.gain.value = 0;
    const attack = Math.round(ATTACK_S * this.rate);
    this.latency = attack + MARGIN; // frames that the limiter looks ahead
    this.limiter = new AudioWorkletNode(context, "limiter", {
      channelCount: 2,
      channelCountMode: "explicit",
      outputChannelCount: [2],
      processorOptions: { attack, ceiling: CEILING },
    });
    this.volume = context.createGain();
    this.bus.connect(this.gate).connect(this.limiter).connect(this.volume);
    this.volume.connect(context.destination);
    this.meter = { peaks: [0, 0], most: [0, 0], gain: 1 };
    this.limiter.port.onmessage = ({ data }) => { this.meter = data; };
  }

  resetPeaks() {
    this.limiter.port.postMessage("reset");
  }

  /** The context's frame that is being computed now. */
  now() {
    return Math.round(this.context.currentTime * this.rate);
  }

  /** Frames from the loop's start to what is computed now; below 0 before it starts. */
  position() {
    return this.now() - this.origin;
  }

  /** The same of what is heard now, which is older by what the limiter and the device hold back. */
  heard() {
    return this.position() - this.#held();
  }

  #held() {
    const held = this.context.outputLatency || this.context.baseLatency || 0;
    return this.latency + held * this.rate;
  }

  strip(id) {
    let strip = this.lanes.get(id);
    if (!strip) {
      const level = this.context.createGain();
      const meter = this.context.createAnalyser();
      meter.fftSize = 1024;
      level.connect(this.bus);
      level.connect(meter);
      strip = { level, meter, pan: 0, take: null, voice: null, next: null };
      this.lanes.set(id, strip);
    }
    return strip;
  }

  removeLane(id) {
    const strip = this.lanes.get(id);
    if (!strip) return;
    for (const voice of [strip.voice, strip.next]) if (voice) this.#end(voice, 0);
    strip.level.gain.setTargetAtTime(0, this.context.currentTime, SMOOTH_S);
    setTimeout(() => strip.level.disconnect(), 200);
    this.lanes.delete(id);
  }

  /** Sets gain (0 is silent) and pan (-1 to 1), softly where it sounds already. */
  setMix(id, { gain, pan }) {
    const strip = this.strip(id);
    if (strip.gain === gain && strip.pan === pan) return;
    Object.assign(strip, { gain, pan });
    this.#glide(strip.level.gain, gain);
    for (const voice of [strip.voice, strip.next]) if (voice) this.#glide(voice.pan.pan, pan);
  }

  #glide(param, value) {
    if (this.playing) param.setTargetAtTime(value, this.context.currentTime, SMOOTH_S);
    else {
      param.cancelScheduledValues(0);
      param.value = value;
    }
  }

  /** The first start of a bar that can still be met, as a frame of the context. */
  nextBar(lead = LEAD_S) {
    const { frames, bars, origin, from = origin } = this.turn ?? this;
    const earliest = Math.max(from, this.now() + Math.ceil(lead * this.rate)) - origin;
    return origin + Math.round((Math.ceil(((earliest - 0.5) * bars) / frames) * frames) / bars);
  }

  /** The first start of the whole loop that can still be met. */
  nextLoop(lead = LEAD_S) {
    const { frames, origin, from = origin } = this.turn ?? this;
    const earliest = Math.max(from, this.now() + Math.ceil(lead * this.rate)) - origin;
    return origin + Math.ceil(earliest / frames) * frames;
  }

  /** Gives a lane its take {id, buffer} or null: at once in silence, else at the next bar. */
  setTake(id, take, frame = null) {
    const strip = this.strip(id);
    if (strip.take?.id === take?.id && strip.take?.buffer === take?.buffer) return;
    this.settle();
    strip.take = take;
    if (!this.playing) return;
    if (strip.next) { // it has not begun: take it back
      this.#end(strip.next, 0);
      strip.next = null;
      const { voice } = strip;
      if (voice && voice.id === take?.id && voice.source.buffer === take.buffer) {
        voice.fade.gain.cancelScheduledValues(0);
        voice.fade.gain.value = voice.full;
        voice.source.stop(NEVER_S);
        return;
      }
    }
    const at = frame ?? this.nextBar();
    if (strip.voice) this.#end(strip.voice, at);
    strip.next = take ? this.#begin(strip, take, at, true) : { id: null, from: at };
  }

  /** Gives the loop another length, and lanes their takes of it (id -> {id, buffer} or null): at
   *  once in silence, else at the next bar, where it goes on with the bar that would have come. */
  change({ frames, bars }, takes) {
    this.settle(0);
    this.turn = null;
    const from = this.nextBar(), bar = Math.round(((from - this.origin) * this.bars) / this.frames);
    const place = Math.round((((bar % this.bars) % bars) * frames) / bars);
    const turn = { from, frames, bars, origin: from - place };
    for (const [id, strip] of this.lanes) {
      strip.take = takes.get(id) ?? null;
      if (!this.playing) continue;
      const comes = strip.next && strip.next.from < from; // it is heard until the loop changes
      if (comes) this.#end(strip.next, from);
      else if (strip.next) this.#end(strip.next, 0);
      if (strip.voice && !comes) this.#end(strip.voice, from);
      strip.next = { id: null, from };
    }
    this.turn = turn;
    if (!this.playing) this.#turn();
    else for (const strip of this.lanes.values()) {
      if (strip.take) strip.next = this.#begin(strip, strip.take, from, true);
    }
  }

  #turn() {
    if (this.turn) Object.assign(this, { ...this.turn, turn: null });
  }

  #begin(strip, take, frame, fadeIn) {
    const source = this.context.createBufferSource();
    const fade = this.context.createGain();
    const pan = this.context.createStereoPanner();
    Object.assign(source, { buffer: take.buffer, loop: true });
    const loop = this.turn ?? this;
    source.loopEnd = loop.frames / this.rate;
    const full = take.buffer.numberOfChannels === 1 ? Math.SQRT2 : 1; // 0 dB in the centre
    pan.pan.value = strip.pan;
    if (fadeIn) {
      fade.gain.value = 0;
      fade.gain.setValueCurveAtTime(RISE.map((v) => v * full), frame / this.rate, FADE_S);
    } else fade.gain.value = full;
    source.connect(fade).connect(pan).connect(strip.level);
    const place = (((frame - loop.origin) % loop.frames) + loop.frames) % loop.frames;
    source.start(frame / this.rate, place / this.rate);
    source.onended = () => pan.disconnect();
    return { id: take.id, source, fade, pan, full, from: frame };
  }

  /** Ends a voice by a fade from this frame on; 0 is at once. An end that was to come is forgotten. */
  #end(voice, frame) {
    if (!voice.source) return;
    if (this.now() < voice.from && frame <= voice.from) { // nobody hears it
      voice.source.stop();
      voice.pan.disconnect();
      return;
    }
    const at = Math.max(frame, this.now() + 128) / this.rate;
    voice.fade.gain.cancelScheduledValues(0);
    voice.fade.gain.value = voice.full;
    voice.fade.gain.setValueCurveAtTime(FALL.map((v) => v * voice.full), at, FADE_S);
    voice.source.stop(at + FADE_S);
  }

  /** What was to come and has begun is now what sounds. */
  #settle(strip) {
    if (strip.next && this.now() >= strip.next.from) {
      strip.voice = strip.next.source ? strip.next : null;
      strip.next = null;
    }
  }

  /** Looks which of the takes that were to come have begun, and whether the loop has changed. */
  settle(held = this.#held()) {
    for (const strip of this.lanes.values()) this.#settle(strip);
    if (this.turn && this.now() >= this.turn.from + held) this.#turn();
  }

  /** Plays all lanes from `place` (frames) of the loop on; returns the frame at which it sounds. */
  start(place = 0, at = this.now() + Math.ceil(0.06 * this.rate)) {
    const was = this.playing;
    this.#turn();
    this.playing = true;
    this.origin = at - place;
    for (const strip of this.lanes.values()) {
      for (const voice of [strip.voice, strip.next]) if (voice) this.#end(voice, 0);
      strip.voice = strip.take ? this.#begin(strip, strip.take, at, was) : null;
      strip.next = null;
    }
    if (!was) {
      this.gate.gain.setValueAtTime(0, Math.max(0, at - 1) / this.rate);
      this.gate.gain.linearRampToValueAtTime(1, at / this.rate + GATE_S);
    }
    return at;
  }

  stop() {
    if (!this.playing) return;
    this.#turn();
    this.playing = false;
    const now = this.context.currentTime;
    const end = now + STOP_S;
    this.gate.gain.cancelScheduledValues(0);
    this.gate.gain.setTargetAtTime(0, now, STOP_S / 5);
    for (const strip of this.lanes.values()) {
      for (const voice of [strip.voice, strip.next]) voice?.source?.stop(end);
      strip.voice = strip.next = null;
    }
  }

  /** A short tone at a frame: it counts in, and measures the way from speaker to microphone. */
  click(frame, high = false, seconds = 0.04) {
    const at = frame / this.rate;
    const tone = this.context.createOscillator();
    const fade = this.context.createGain();
    tone.frequency.value = high ? 1760 : 1175;
    fade.gain.setValueAtTime(0.5, at);
    fade.gain.exponentialRampToValueAtTime(0.001, at + seconds);
    tone.connect(fade).connect(this.limiter);
    tone.start(at);
    tone.stop(at + seconds);
    tone.onended = () => fade.disconnect();
  }
}
