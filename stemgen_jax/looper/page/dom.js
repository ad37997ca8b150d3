// SPDX-License-Identifier: Apache-2.0
// The few things that every part of the page does to elements.

export const byId = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

/** Shows a value in a field, unless somebody is changing it right now. */
export function setValue(field, value) {
  const text = value === null || value === undefined ? "" : String(value);
  if (!field.dataset.touched && field.value !== text) field.value = text;
}

/** Calls change(value) when a field's change is done, and moving(value) on the way there. */
export function onField(field, change, moving = () => {}) {
  field.addEventListener("input", () => {
    field.dataset.touched = "yes";
    moving(field.value);
  });
  field.addEventListener("change", () => {
    delete field.dataset.touched;
    if (field.checkValidity()) change(field.value);
    else field.reportValidity();
  });
  field.addEventListener("blur", () => delete field.dataset.touched);
  field.addEventListener("keydown", ({ key }) => { // the keys are the looper's again
    if (key === "Enter" && field.checkValidity()) field.blur();
  });
}

export function press(button, on) {
  button.setAttribute("aria-pressed", on ? "true" : "false");
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function decibels(gain) {
  return gain > 1e-6 ? 20 * Math.log10(gain) : -Infinity;
}

/** "1.4 s" of seconds, or "?" where nobody knows. */
export function seconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(value < 9.95 ? 1 : 0)} s` : "?";
}
