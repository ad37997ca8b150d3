// SPDX-License-Identifier: Apache-2.0
// Fields: they show what holds, take what they may, and say what they may not.

import { say, settle } from "./say.js";

const held = new WeakMap(); // field -> what holds, shown or not
const busy = new WeakSet(); // fields that somebody is changing, or whose change has no answer yet

/** Shows a value in a field, unless somebody is changing it right now. */
export function setValue(field, value) {
  held.set(field, value === null || value === undefined ? "" : String(value));
  if (!busy.has(field)) show(field);
}

function show(field) {
  const value = held.get(field) ?? field.defaultValue;
  if (field.value !== value) field.value = value;
}

/** Calls change(value) when a field's change is done, and moving(value) on the way there.
 *  The field then shows what holds: what change has led to, or its value if change says nothing. */
export function onField(field, change, moving = () => {}) {
  let typed = 0, asking = false;
  field.addEventListener("input", () => {
    typed++;
    busy.add(field);
    moving(field.value);
  });
  field.addEventListener("change", async () => {
    const at = typed, { value } = field;
    if (field.checkValidity()) {
      settle("field");
      asking = true;
      if ((await change(value)) === undefined) held.set(field, value);
      asking = false;
    } else say(refusal(field), "error", { key: "field" });
    if (typed !== at) return; // it is being changed once more
    busy.delete(field);
    show(field);
  });
  field.addEventListener("blur", () => {
    if (asking) return;
    busy.delete(field);
    show(field);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    if (!field.checkValidity()) event.preventDefault(); // and no form is sent
    field.blur(); // the keys are the looper's again
  });
}

function refusal(field) {
  const name = field.getAttribute("aria-label") ?? field.labels[0].firstChild.textContent.trim();
  if (field.type !== "number") return `${name}: ${field.validationMessage}`;
  const kind = field.step === "any" ? "number" : "whole number";
  const before = held.get(field) ?? field.defaultValue;
  return `${name} must be a ${kind} from ${field.min} to ${field.max}, so it is ${before} again.`;
}
