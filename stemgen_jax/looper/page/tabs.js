// SPDX-License-Identifier: Apache-2.0
// Two tabs of one session: both show it, one sounds at a time, and each says so.

import { onPlayer, player, stop } from "./player.js";
import { say, settle } from "./say.js";

const WORDS = "This session is open in another tab too. Both show the same; one sounds.";

export function startTabs() {
  if (!("BroadcastChannel" in window)) return;
  const channel = new BroadcastChannel(`looper-${location.port}`);
  const others = new Set();
  const own = Math.random().toString(36).slice(2);
  const send = (kind) => channel.postMessage({ kind, from: own });
  channel.addEventListener("message", ({ data: { kind, from } }) => {
    if (kind === "bye") others.delete(from);
    else if (!others.has(from)) {
      others.add(from);
      say(WORDS, "info", { key: "tabs", stays: true });
    }
    if (kind === "hello") send("here");
    if (kind === "play" && player.engine?.playing) {
      stop();
      say("Another tab plays this session now, so this one has stopped.", "info", { key: "tabs", stays: true });
    }
    if (!others.size) settle("tabs");
  });
  onPlayer((name) => name === "play" && send("play"));
  addEventListener("pagehide", () => send("bye"));
  send("hello");
}
