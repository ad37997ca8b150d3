// SPDX-License-Identifier: Apache-2.0
// The few things that every part of the page does to elements.

export const byId = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

export function press(button, on) {
  button.setAttribute("aria-pressed", on ? "true" : "false");
}

/** What the browser keeps for this page under a name; null where it keeps nothing. */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a text under a name, where the browser keeps anything. */
export function remember(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch { /* then it holds for this page alone */ }
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function decibels(gain) {
  return gain > 1e-6 ? 20 * Math.log10(gain) : -Infinity;
}

/** "1.4 s" of seconds, or "?" where nobody knows. */
export function seconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(value < 9.95 ? 1 : 0)} s` : "?";
}
