// SPDX-License-Identifier: Apache-2.0
// Puts the page together.

import { fetchState, listen } from "./api.js";
import { startBoard, tickBoard } from "./board.js";
import { byId, setText } from "./dom.js";
import { startFiles } from "./files.js";
import { startKeys } from "./keys.js";
import { onPlayer, player, play, render, stop } from "./player.js";
import { startRecorder } from "./record.js";
import { say, settle } from "./say.js";
import { applyProgress, applyState, store, subscribe } from "./store.js";
import { startTabs } from "./tabs.js";
import { startTheme } from "./theme.js";
import { startTransport, tickTransport } from "./transport.js";

const LOST = "The connection to the looper is lost. What plays goes on, and it is tried again. "
  + "If its program was closed, start it again with --session and open the address that it prints.";
const ELSEWHERE = "The looper was started again. Open the address that it printed: this page has "
  + "an old one.";
const SLEPT_MS = 15000; // a gap this long between ticks means that the lid was closed

async function refresh() {
  try {
    applyState(await fetchState());
    settle("unanswered");
    return true;
  } catch (error) {
    say(error.message, "error", { key: error.key ?? "state" });
    return false;
  }
}

function watchSleep() {
  let last = Date.now();
  setInterval(() => {
    const now = Date.now();
    if (now - last > SLEPT_MS && document.visibilityState === "visible") refresh();
    last = now;
  }, 2000);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    refresh();
    const { engine } = player;
    if (engine?.playing && engine.context.state !== "running") engine.context.resume();
  });
}

const REST_MS = 400; // levels fall for this long after play has stopped
const FRAME_MS = 20; // between two pictures: the model needs the processor too
let sounded = 0, asleep = true;

function tick(now) {
  if (player.engine?.playing) sounded = now;
  asleep = now - sounded > REST_MS; // nothing moves: no frame is asked for until something happens
  if (!asleep) setTimeout(requestAnimationFrame, FRAME_MS, tick);
  tickTransport();
  tickBoard();
}

function wake() {
  if (asleep) requestAnimationFrame(tick);
  asleep = false;
}

startTheme();
startTransport();
startBoard();
startFiles();
startRecorder();
startKeys();
startTabs();
watchSleep();
listen({
  onState: applyState,
  onProgress: applyProgress,
  onLost: (elsewhere) => {
    document.body.classList.add("lost");
    setText(byId("model-words"), "The connection is lost.");
    say(elsewhere ? ELSEWHERE : LOST, "error", { key: "connection", stays: true });
  },
  onFound: async () => {
    document.body.classList.remove("lost");
    store.server = null; // a server that was started again counts from its own beginning
    if (await refresh()) {
      settle("connection");
      say("The connection is back. Nothing was lost.");
    }
  },
});
subscribe(wake);
onPlayer(wake);
addEventListener("resize", wake);
refresh();
window.looper = { store, player, play, stop, render, refresh };
