// SPDX-License-Identifier: Apache-2.0
// Marking what stays of a take: by dragging over its waveform, or by the arrow keys.

import { clamp } from "./dom.js";
import { lengths, placeName, store } from "./store.js";
import { announce } from "./say.js";

const FEWEST_S = 0.05;

/** Parts in order, those that touch made one. */
export function join(parts) {
  const sorted = parts.map((part) => [...part].sort((a, b) => a - b)).sort((a, b) => a[0] - b[0]);
  const joined = [];
  for (const [start, end] of sorted) {
    const last = joined.at(-1);
    if (last && start <= last[1] + 1e-6) last[1] = Math.max(last[1], end);
    else if (end - start >= FEWEST_S) joined.push([start, end]);
  }
  return joined;
}

/** Lets a person mark parts of `screen`; set(parts) is called as the marks move. */
export function letMark(screen, { parts, set, allowed }) {
  let drag = null;

  const placeOf = (event) => {
    const box = screen.getBoundingClientRect();
    return clamp((event.clientX - box.left) / box.width, 0, 1) * lengths(store.state).loop;
  };

  const marked = (event) => {
    const { loop, beat } = lengths(store.state);
    let [start, end] = [drag.from, placeOf(event)].sort((a, b) => a - b);
    if (!event.altKey) {
      start = Math.floor(start / beat + 0.2) * beat;
      end = Math.max(start + beat, Math.ceil(end / beat - 0.2) * beat);
    }
    return join([...drag.before, [start, Math.min(end, loop)]]);
  };

  screen.addEventListener("pointerdown", (event) => {
    if (event.button || !allowed()) return;
    drag = { from: placeOf(event), x: event.clientX, before: event.shiftKey ? parts() : [] };
  });
  screen.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (!drag.moved && Math.abs(event.clientX - drag.x) < 6) return;
    if (!drag.moved) screen.setPointerCapture(event.pointerId);
    drag.moved = true;
    set(marked(event));
  });
  screen.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved && parts().length) set([]);
    else if (drag?.moved) {
      set(marked(event));
      tell(parts());
    }
    drag = null;
  });
  screen.addEventListener("pointercancel", () => { drag = null; });

  screen.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !allowed()) return;
    event.preventDefault();
    const { loop, beat } = lengths(store.state);
    let [start, end] = parts().at(-1) ?? [step > 0 ? -beat : loop, step > 0 ? 0 : loop + beat];
    if (event.shiftKey && parts().length) end = clamp(end + step * beat, start + beat, loop);
    else {
      const move = clamp(step * beat, -start, loop - end);
      start += move;
      end += move;
    }
    set(join([...parts().slice(0, -1), [start, end]]));
    tell(parts());
  });
}

function tell(parts) {
  const words = parts.map(
    ([start, end]) => `${placeName(store.state, start)} to ${placeName(store.state, end)}`,
  );
  announce(words.length ? `Kept: ${words.join("; ")}.` : "Nothing is marked.");
}
