# SPDX-License-Identifier: Apache-2.0
"""What the looper's page lets one hear, sample by sample: its own graph, rendered."""

import numpy as np
import pytest
from page_driver import RATE_HZ, Page, open_browser, serve, write_loop

CLOSE = 5e-5  # browsers and soundfile scale 16 bits by 1 / 32767 or 1 / 32768
GATE = 200  # samples in which play begins
FADE = round(0.012 * RATE_HZ)
TURN = """async (bar) => {
  const { Engine } = await import("/static/engine.js");
  const context = new OfflineAudioContext(2, 8 * bar, 44100);
  const engine = await Engine.build(context, { frames: 2 * bar, bars: 2 });
  const noise = (id, bars, seed) => {
    const buffer = context.createBuffer(2, bars * bar, 44100);
    let state = seed;
    for (let i = 0; i < bars * bar; i++) {
      state = (state * 1103515245 + 12345) % 2147483648;
      for (const c of [0, 1]) buffer.getChannelData(c)[i] = state / 2147483648 - 0.5;
    }
    return { id, buffer };
  };
  const takes = { a: noise("a", 2, 1), b: noise("b", 2, 2), c: noise("c", 3, 3) };
  engine.setMix("lane", { gain: 1, pan: 0 });
  engine.setTake("lane", takes.a);
  engine.start(0, 0);
  ASK
  const rendered = (await context.startRendering()).getChannelData(0);
  const [a, b, c] = "abc".split("").map((id) => takes[id].buffer.getChannelData(0));
  const heard = []; // bar by bar, away from fades: which take, and at which of its bars
  for (let n = 0; n < 8; n++) {
    const start = n * bar + 2000 + engine.latency, found = [];
    for (const [id, take] of [["a", a], ["b", b], ["c", c]]) {
      for (let first = 0; first < take.length / bar; first++) {
        let far = 0;
        for (let i = 0; i < bar - 4000; i++) {
          const wanted = take[first * bar + 2000 + i];
          far = Math.max(far, Math.abs(rendered[start + i] - wanted));
        }
        if (far < 1e-4) found.push(id + first);
      }
    }
    heard.push(found.join());
  }
  return [heard, engine.nextBar() % bar];
}"""
CEILING = 10 ** (-1 / 20)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  """The page with a stereo loop, and two lanes of takes, one of which has two."""
  folder = tmp_path_factory.mktemp("sound")
  with open_browser(folder) as driver, serve(folder / "session") as looper:
    page = Page(driver, looper.address)
    page.file = page.begin(write_loop(folder / "loop.wav"))
    lanes = page.state["lanes"]
    page.one, page.two, page.free, *_ = (i for i, lane in enumerate(lanes) if not lane["takes"])
    page.set_lane(page.file, pan=-0.4, level_db=-9.0)
    page.set_lane(page.one, pan=0.7, level_db=-12.0, seed=0)
    page.set_lane(page.two, pan=-1.0, level_db=-15.0, seed=1)
    for index, count in ((page.one, 1), (page.two, 1), (page.one, 2)):
      page.in_lane(index, ".generate" if count == 1 else ".another").click()
      page.wait_for_takes(index, count)
    yield page
    page.check_log()


def pan(samples, lane):
  """A take as its lane sounds: StereoPannerNode's law, 0 dB in the centre, and its level."""
  gain, place = 10 ** (lane["level_db"] / 20), lane["pan"]
  if len(samples) == 1:
    angle = (place + 1) * np.pi / 4
    return gain * np.sqrt(2) * np.outer([np.cos(angle), np.sin(angle)], samples[0])
  left, right = samples
  angle = (place + (place <= 0)) * np.pi / 2
  if place <= 0:
    return gain * np.stack([left + right * np.cos(angle), right * np.sin(angle)])
  return gain * np.stack([left * np.cos(angle), right + left * np.sin(angle)])


def mix(page, loops, but=None):
  """The sum of the lanes as the state has them."""
  lanes = [lane for lane in page.state["lanes"] if lane["active"] and lane["id"] != but]
  return sum(np.tile(pan(page.read_take(lane["active"]), lane), loops) for lane in lanes)


def test_lanes_are_aligned_to_the_sample_and_stay_so(page):
  wanted = mix(page, 3)
  heard, latency, meter = page.render(loops=3)
  assert meter["gain"] == 1
  length = heard.shape[1] - latency
  assert np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(heard[:, latency:][:, GATE:], wanted[:, GATE:length], atol=CLOSE)


def test_a_take_is_swapped_at_the_bar_by_a_crossfade_of_equal_power(page):
  lane, length = page.lane(page.one), page.state["loop_samples"]
  first, second = (np.tile(pan(page.read_take(take["id"]), lane), 2) for take in lane["takes"])
  assert lane["active"] == lane["takes"][1]["id"]
  at = length // 2
  swap = {"lane": lane["id"], "take": lane["takes"][0]["id"], "frame": at}
  heard, latency, _ = page.render(loops=2, swaps=[swap])
  angle = np.clip((np.arange(2 * length) - at) / FADE, 0, 1) * np.pi / 2
  wanted = mix(page, 2, lane["id"]) + second * np.cos(angle) + first * np.sin(angle)
  size = heard.shape[1] - latency
  assert np.abs(first - second)[:, at : at + 5000].max() > 0.01  # the swap can be heard
  np.testing.assert_allclose(heard[:, latency:][:, GATE:], wanted[:, GATE:size], atol=2 * CLOSE)


def test_a_loop_meets_itself_without_a_click(page):
  silent = {lane["id"]: {"gain": 0, "pan": 0} for lane in page.state["lanes"]}
  own = {page.lane(page.file)["id"]: {"gain": 1, "pan": 0}}
  heard, latency, _ = page.render(loops=3, mixes={**silent, **own})
  length = page.state["loop_samples"]
  for order in (1, 2):  # step and slope
    jumps = np.abs(np.diff(heard[:, latency:], order, axis=1)).max(0)
    most = np.percentile(jumps[GATE : length - 10], 95)
    assert most > 0
    for seam in (length, 2 * length):
      assert jumps[seam - 4 : seam + 3].max() <= most


@pytest.mark.parametrize(
  ("ask", "heard"),
  [
    ("", "a0 a1 a0 a1 a0 a1 a0 a1"),
    ("engine.setTake('lane', takes.b)", "a0 b1 b0 b1 b0 b1 b0 b1"),
    # Taken back before it began: the first one never ends.
    ("engine.setTake('lane', takes.b); engine.setTake('lane', takes.a)", "a0 a1 a0 a1 a0 a1 a0 a1"),
    # Another length: the old plays on to its bar's end, and the bar that would come is the next.
    (
      "engine.change({ frames: 3 * bar, bars: 3 }, new Map([['lane', takes.c]]))",
      "a0 c1 c2 c0 c1 c2 c0 c1",
    ),
    (
      "engine.setTake('lane', takes.b, bar);"
      "engine.change({ frames: 3 * bar, bars: 3 }, new Map([['lane', takes.c]]))",
      "a0 c1 c2 c0 c1 c2 c0 c1",
    ),
    # Changed twice, and back, before anything began.
    (
      "engine.change({ frames: 3 * bar, bars: 3 }, new Map([['lane', takes.c]]));"
      "engine.change({ frames: 2 * bar, bars: 2 }, new Map([['lane', takes.b]]))",
      "a0 b1 b0 b1 b0 b1 b0 b1",
    ),
  ],
)
def test_what_is_to_come_comes_at_the_bar_and_can_be_taken_back(page, ask, heard):
  found, off = page.ask(TURN.replace("ASK", ask), RATE_HZ // 2)
  assert " ".join(found) == heard
  assert off == 0


def test_nothing_is_ever_above_full_scale(page):
  loud = {lane["id"]: {"gain": 10, "pan": 0.3} for lane in page.state["lanes"]}
  heard, _, meter = page.render(loops=2, mixes=loud)
  assert np.abs(heard).max() <= CEILING + 1e-6
  assert np.abs(heard).max() > 0.7  # it is still loud
  assert meter["gain"] < 0.7
  assert max(meter["most"]) <= 1


def test_mute_and_solo_are_what_is_heard(page):
  page.set_lane(page.two, solo=True)
  heard, latency, _ = page.render(loops=1)
  lane = page.lane(page.two)
  wanted = pan(page.read_take(lane["active"]), lane)
  size = heard.shape[1] - latency
  np.testing.assert_allclose(heard[:, latency:][:, GATE:], wanted[:, GATE:size], atol=CLOSE)
  page.set_lane(page.two, mute=True)
  heard, *_ = page.render(loops=1)
  assert not heard.any()
  page.set_lane(page.two, solo=False, mute=False)


@pytest.mark.slow
def test_a_recording_lies_where_it_was_played(page):
  """The microphone hears the page itself: what is recorded must lie on what was played."""
  page.run("""navigator.mediaDevices.getUserMedia = async () => {
    const { context, volume } = looper.player.engine;
    const heard = context.createMediaStreamDestination();
    volume.connect(heard);
    return heard.stream; }""")
  page.in_lane(page.free, ".badge").click()
  page.press("r")
  page.wait("document.querySelector('#latency').value > 0")
  page.click("#latency-measure")
  page.wait("document.querySelector('#record-words').textContent.startsWith('Measured')")
  page.click("#record-start")
  page.wait_for_takes(page.free, 1)
  (take,) = page.lane(page.free)["takes"]
  assert take["origin"] == "recording"
  recorded = page.read_take(take["id"])[0]
  played = mix(page, 1, page.lane(page.free)["id"]).mean(0)
  size = 2 * len(played)
  spectrum = np.fft.rfft(recorded, size) * np.conj(np.fft.rfft(played, size))
  match = np.fft.irfft(spectrum)
  late = int(match.argmax())
  late -= size * (late > size // 2)
  assert abs(late) <= 0.001 * RATE_HZ  # the field has whole milliseconds
  assert match.max() > 0.95 * np.linalg.norm(recorded) * np.linalg.norm(played)
