// SPDX-License-Identifier: Apache-2.0
// The keyboard.

import { chosen, step, viewOf } from "./board.js";
import { byId, recall, remember } from "./dom.js";
import { cancelLane } from "./jobs.js";
import { toggle } from "./player.js";
import { openRecorder } from "./record.js";
import { setLane, store } from "./store.js";
import { redo, undo } from "./transport.js";

const LETTERS = "looper-letters";
const WRITES = { g: "generate", n: "another", v: "vary" };

/** Whether the key belongs to what has the focus: a field, or a button reached by Tab. */
function isTaken(event) {
  const at = document.activeElement;
  if (document.querySelector("dialog[open]")) return true;
  if (!at || at === document.body) return false;
  if (at.matches("input:not([type=range]), select, textarea")) return true;
  if (at.matches("input[type=range]")) return event.key.startsWith("Arrow");
  if (at.matches(".screen, #ruler") && /^Arrow(Left|Right)/.test(event.key)) return true;
  return [" ", "Enter"].includes(event.key) && at.matches("button:focus-visible");
}

function act(event) {
  const { key } = event, view = chosen();
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
  const lane = digit && store.state?.lanes[digit - 1];
  if (lane) setLane(lane.id, event.shiftKey ? { solo: !lane.solo } : { mute: !lane.mute });
  else if (key === " ") toggle();
  else if (key === "?") byId("help-dialog").showModal();
  else if (key.toLowerCase() === "z") (event.shiftKey ? redo : undo)();
  else if (key === "ArrowUp" || key === "ArrowDown") step(key === "ArrowUp" ? -1 : 1);
  else if (key.toLowerCase() === "r") openRecorder(store.selected);
  else if (key === "Escape") {
    if (view && !view.unmark() && !cancelLane(view.id)) {
      const first = store.state?.queue[0];
      if (first) cancelLane(first.lane);
    }
  } else if (key.toLowerCase() === "t") viewOf(store.selected)?.cycleTake();
  else if (WRITES[key.toLowerCase()]) view?.write(WRITES[key.toLowerCase()]);
  else return false;
  return true;
}

export function startKeys() {
  addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() !== "z") return;
    if (!command && event.key.length === 1 && event.key !== " " && !byId("letters").checked) return;
    if (event.altKey || event.isComposing || isTaken(event)) return;
    if (event.repeat && !event.key.startsWith("Arrow")) return;
    if (act(event)) event.preventDefault();
  });
  // A button that was clicked gives the space bar back to play.
  addEventListener("keyup", (event) => {
    const at = document.activeElement;
    if (event.key === " " && at?.matches("button:not(:focus-visible)")) event.preventDefault();
  });
  const letters = byId("letters"); // speech input and some screen readers need single keys
  letters.checked = recall(LETTERS) !== "off";
  letters.addEventListener("change", () => remember(LETTERS, letters.checked ? "on" : "off"));
  byId("help").addEventListener("click", () => byId("help-dialog").showModal());
}
