// SPDX-License-Identifier: Apache-2.0
// Sentences for the person who plays: read out by screen readers, and kept on the page.

import { byId } from "./dom.js";

const LIFE_MS = { info: 6000, error: 20000 };
const shown = new Map(); // key -> element

/** Shows a sentence. With a key it replaces the one before, and stays until settle(key). */
export function say(text, kind = "info", key = null) {
  if (!text) return;
  if (key) settle(key);
  const list = byId("messages");
  for (const old of list.children) if (old.firstChild.textContent === text) old.remove();
  const item = document.createElement("div");
  item.className = `message ${kind}`;
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => item.remove());
  item.append(words, close);
  list.append(item);
  while (list.children.length > 4) list.firstElementChild.remove();
  readOut(kind === "error" ? "alert" : "status", text);
  if (key) shown.set(key, item);
  else setTimeout(() => item.remove(), LIFE_MS[kind]);
}

/** Takes away the sentence of this key. */
export function settle(key) {
  shown.get(key)?.remove();
  shown.delete(key);
}

function readOut(id, text) { // emptied first, so that the same sentence is read a second time
  byId(id).textContent = "";
  setTimeout(() => { byId(id).textContent = text; }, 50);
}

/** Only read out. */
export function announce(text) {
  readOut("status", text);
}
