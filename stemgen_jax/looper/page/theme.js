// SPDX-License-Identifier: Apache-2.0
// Dark, light, or as the system has it; remembered.

import { byId, recall, remember } from "./dom.js";
import { announce } from "./say.js";

const WAYS = ["system", "dark", "light"];
const KEY = "looper-colours";

function apply(way) {
  if (way === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = way;
  const next = WAYS[(WAYS.indexOf(way) + 1) % WAYS.length];
  const words = `Colours: ${way}. Press for ${next}.`;
  byId("theme").title = words;
  byId("theme").setAttribute("aria-label", words);
}

export function startTheme() {
  let way = WAYS.includes(recall(KEY)) ? recall(KEY) : "system";
  apply(way);
  byId("theme").addEventListener("click", () => {
    way = WAYS[(WAYS.indexOf(way) + 1) % WAYS.length];
    remember(KEY, way);
    apply(way);
    announce(`Colours: ${way}.`);
  });
}
