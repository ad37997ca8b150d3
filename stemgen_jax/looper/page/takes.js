// SPDX-License-Identifier: Apache-2.0
// A lane's takes: a button each, and what there is to tell of one.

import { request } from "./api.js";
import { byId, press, seconds, setText } from "./dom.js";
import { say } from "./say.js";
import { chooseTake } from "./store.js";

const ORIGINS = {
  generated: "written by the model", varied: "a variation", file: "from a file",
  recording: "recorded", kept: "partly kept, the rest written anew",
};
const originOf = (take) => ORIGINS[take.origin] ?? take.origin;

/** Shows the buttons of a lane's takes in its view. */
export function showTakes(view, { id, name, takes, active }) {
  const list = view.at("choices");
  const key = takes.map((take) => take.id).join();
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...takes.map((take) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "take", textContent: take.label });
      button.dataset.take = take.id;
      button.title = `Take ${take.label}: ${originOf(take)}`;
      button.setAttribute("aria-label", `${button.title}, ${name}`);
      button.addEventListener("click", () => chooseTake(id, take.id));
      return button;
    }));
  }
  for (const button of list.children) press(button, button.dataset.take === active);
  view.at("about").hidden = view.at("spectrum").hidden = !active;
}

/** Opens the dialog about a lane's active take. */
export async function tellTake({ name, takes, active }) {
  const take = takes.find((one) => one.id === active);
  if (!take) return;
  byId("take-title").textContent = `${name}: take ${take.label}`;
  const seed = Number.isFinite(take.seed) ? `, seed ${take.seed}` : "";
  const time = Number.isFinite(take.seconds) ? `, in ${seconds(take.seconds)}` : "";
  const about = `${originOf(take)}${seed}${time}.`;
  byId("take-about").textContent = about[0].toUpperCase() + about.slice(1);
  const show = (command) => {
    byId("take-how").hidden = byId("take-command").hidden = byId("take-copy").hidden = !command;
    byId("take-command").textContent = command ?? "";
  };
  show(null);
  byId("take-dialog").showModal();
  try {
    show((await (await request(`/api/take/${take.id}.json`)).json()).command);
  } catch (error) {
    say(error.message, "error", { key: error.key });
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("take-command").textContent);
    setText(byId("take-copy"), "Copied");
    setTimeout(() => setText(byId("take-copy"), "Copy"), 1500);
  } catch {
    say("The browser does not let the page copy. Mark the command and copy it yourself.", "error");
  }
}

byId("take-copy").addEventListener("click", copy);
