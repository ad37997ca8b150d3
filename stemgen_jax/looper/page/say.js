// SPDX-License-Identifier: Apache-2.0
// Sentences for the person who plays: read out by screen readers, and shown for a while.

import { byId } from "./dom.js";

const LIFE_MS = { info: 6000, error: 12000 }; // and so much for each letter, to be read in peace:
const LETTER_MS = 60;
const MOST = 4; // messages at a time
const shown = new Map(); // key -> element

/** Shows a sentence; errors are shown longer. One with a key takes the place of the one before,
 *  and goes with settle(key); one that stays goes in no other way, but by its button. */
export function say(text, kind = "info", { key = null, stays = false } = {}) {
  if (!text) return;
  if (key) settle(key);
  const list = byId("messages");
  for (const old of [...list.children]) if (old.firstChild.textContent === text) take(old);
  const item = document.createElement("div");
  item.className = `message ${kind}`;
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => take(item));
  item.append(words, close);
  list.append(item);
  while (list.children.length > MOST) take(list.firstElementChild);
  readOut(kind === "error" ? "alert" : "status", text);
  if (key) shown.set(key, item);
  if (!stays) setTimeout(take, LIFE_MS[kind] + LETTER_MS * text.length, item);
}

function take(item) {
  const text = item.firstChild.textContent;
  item.remove();
  for (const [key, one] of shown) if (one === item) shown.delete(key);
  for (const id of ["alert", "status"]) {
    if (byId(id).textContent === text) byId(id).textContent = "";
  }
}

/** Takes away the sentence of this key: its reason is gone. */
export function settle(key) {
  if (shown.has(key)) take(shown.get(key));
}

function readOut(id, text) { // emptied first, so that the same sentence is read a second time
  byId(id).textContent = "";
  setTimeout(() => { byId(id).textContent = text; }, 50);
}

/** Only read out. */
export function announce(text) {
  readOut("status", text);
}
