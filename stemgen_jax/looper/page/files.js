// SPDX-License-Identifier: Apache-2.0
// Sounds from outside: dropped on the page, chosen, or recorded.

import { upload } from "./api.js";
import { byId } from "./dom.js";
import { say, settle } from "./say.js";
import { applyState, laneOf, sayLocked, selectLane, store } from "./store.js";

const MOST_BYTES = 64e6; // the server refuses more; here it is said before it is sent
let target = "new";

/** Sends a sound to a lane ("new" makes one); returns whether it is there. */
export async function send(data, name, lane = "new", more = {}) {
  if (data.size > MOST_BYTES) {
    const size = Math.round(data.size / 1e6);
    say(`${name} has ${size} MB. A sound may have at most 64 MB: cut it first.`, "error", { key: "upload" });
    return false;
  }
  if (laneOf(lane)?.lock) {
    sayLocked(laneOf(lane));
    return false;
  }
  say(`${name} is being read.`, "info", { key: "upload", stays: true });
  try {
    const before = new Set(store.state.lanes.map((one) => one.id));
    const state = await upload(data, lane, name, more);
    applyState(state);
    settle("upload");
    const made = state.lanes.find((one) => !before.has(one.id));
    if (made) selectLane(made.id);
    if (!state.notice) say(`${name} is in the loop.`);
    return true;
  } catch (error) {
    settle("upload");
    say(error.message, "error", { key: error.key ?? "upload" });
    return false;
  }
}

/** Opens the browser's chooser for a lane, "new" for one more. */
export function chooseFile(lane = "new") {
  target = lane;
  byId("file").value = "";
  byId("file").click();
}

export function startFiles() {
  byId("choose").addEventListener("click", () => chooseFile());
  byId("way-file").addEventListener("click", () => chooseFile());
  byId("file").addEventListener("change", async ({ target: { files } }) => {
    for (const file of [...files]) await send(file, file.name, target);
    target = "new";
  });
  let depth = 0;
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const show = (on) => { byId("drop").hidden = !on; };
  addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth++;
    show(true);
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) show(false);
  });
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const under = document.elementsFromPoint(event.clientX, event.clientY);
    const node = under.find((one) => one.classList.contains("lane"));
    const lane = node?.dataset.lane ?? "new";
    for (const file of [...event.dataTransfer.files]) await send(file, file.name, lane);
  });
}
