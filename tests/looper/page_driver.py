# SPDX-License-Identifier: Apache-2.0
"""A looper that is served, and a headless Chromium that plays it."""

import base64
import contextlib
import io
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
RATE_HZ = 44_100
LONGEST_S = 180.0  # that a test waits for anything on a busy machine
FLAGS = (
  "headless",
  "no-sandbox",
  "disable-gpu",
  "disable-quic",
  "no-first-run",
  "disable-background-networking",
  "disable-component-update",
  "disable-sync",
  "hide-scrollbars",
  "autoplay-policy=no-user-gesture-required",
  "use-fake-device-for-media-stream",
  "use-fake-ui-for-media-stream",
)
RENDER = """
const [options, done] = arguments;
const pack = (samples) => {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  }
  return btoa(text);
};
looper.render(options).then(({ rendered, latency, meter }) => done({
  latency, meter, channels: [0, 1].map((c) => pack(rendered.getChannelData(c))),
}), (error) => done({ error: String(error) }));
"""


@contextlib.contextmanager
def open_browser(folder):
  """A Chromium that keeps nothing, asks nobody, and saves into `folder`/saved."""
  webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
  if not (CHROMIUM.is_file() and CHROMEDRIVER.is_file()):
    pytest.skip(f"needs Debian's {CHROMIUM} and {CHROMEDRIVER}")
  options = webdriver.ChromeOptions()
  options.binary_location = str(CHROMIUM)
  for flag in (*FLAGS, f"user-data-dir={folder / 'profile'}"):
    options.add_argument(f"--{flag}")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
  driver.set_script_timeout(LONGEST_S)
  saved = {"behavior": "allow", "downloadPath": str(folder / "saved")}
  driver.execute_cdp_cmd("Browser.setDownloadBehavior", saved)
  try:
    yield driver
  finally:
    driver.quit()


class Looper:
  """The looper of a session, without a model."""

  def __init__(self, session):
    self.session = session
    self.start()

  def start(self):
    command = [sys.executable, "-m", "stemgen_jax.looper", "--recorded", "--no-open"]
    command += ["--session", str(self.session)]
    self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert self.process.stdout is not None
    self.address = self.process.stdout.readline().removeprefix("looper:").strip()

  def stop(self):
    self.process.terminate()
    self.process.communicate()


@contextlib.contextmanager
def serve(session):
  """The looper of a session, stopped at the end."""
  looper = Looper(session)
  try:
    yield looper
  finally:
    looper.stop()


def write_loop(path, seconds=4.0, level=0.35):
  """Writes two bars at 120 beats a minute, which close: each beat is like the one before."""
  time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  within = time_s % 0.5
  strike = (
    np.minimum(within / 0.01, 1) * np.exp(-within / 0.09) * np.minimum((0.5 - within) / 0.02, 1)
  )
  tone = sum(np.sin(2 * np.pi * f * time_s) / n for n, f in enumerate((220, 440, 662, 990), 1))
  under = 0.2 * np.sin(2 * np.pi * 110 * time_s + 1)  # it is nowhere silent, nor at the seam
  samples = level * np.stack([tone * strike + under, tone * strike * 0.8 - under], axis=1) / 2
  soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
  return path


class Page:
  """What a person can see and do."""

  def __init__(self, driver, address):
    self.driver, self.address = driver, address
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    self.resize(1280, 900)
    self.colour("dark")
    driver.get(address)
    self.wait("window.looper && looper.store.state")

  def find(self, selector):
    return self.driver.find_element("css selector", selector)

  def all(self, selector):
    return self.driver.find_elements("css selector", selector)

  def click(self, selector):
    self.find(selector).click()

  def press(self, keys):
    self.find("body").send_keys(keys)

  def run(self, script, *arguments):
    return self.driver.execute_script(script, *arguments)

  def ask(self, script, *arguments):
    """The value of a promise."""
    call = f"""const done = arguments[arguments.length - 1];
      ({script})(...arguments).then(
        (value) => done({{ value }}), (error) => done({{ error: String(error) }}))"""
    got = self.driver.execute_async_script(call, *arguments)
    assert "error" not in got, got["error"]
    return got.get("value")

  def wait(self, condition):
    """Waits until an expression is true; returns its value."""
    end = time.monotonic() + LONGEST_S
    while not (value := self.run(f"return {condition}")):
      assert time.monotonic() < end, f"{condition} did not come; the page says {self.messages()}"
      time.sleep(0.02)
    return value

  def poll(self, find):
    """Waits until a function of this process gives something true; returns it."""
    end = time.monotonic() + LONGEST_S
    while not (value := find()):
      assert time.monotonic() < end
      time.sleep(0.02)
    return value

  def wait_for_message(self, part):
    self.wait(
      f"[...document.querySelectorAll('.message')].some(m => m.textContent.includes({part!r}))"
    )

  def messages(self):
    return self.run("return [...document.querySelectorAll('.message p')].map(p => p.textContent)")

  @property
  def state(self):
    return self.run("return looper.store.state")

  def lane(self, index):
    return self.state["lanes"][index]

  def in_lane(self, index, selector):
    return self.all("#lanes > .lane")[index].find_element("css selector", selector)

  def open(self, path):
    """Gives a file to the page's own input."""
    self.find("#file").send_keys(str(path))

  def drop(self, path):
    """Lets go of a file over the page."""
    script = """const [text, name] = arguments, data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
    for (const kind of ["dragenter", "dragover", "drop"]) {
      document.querySelector("main").dispatchEvent(
        new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    self.run(script, base64.b64encode(path.read_bytes()).decode(), path.name)

  def begin(self, path):
    """Starts a session from a file that is dropped; returns the index of its lane."""
    self.drop(path)
    self.wait("looper.store.state.loop_samples > 0 && looper.store.state.lanes.some(l => l.active)")
    return self.run("return looper.store.state.lanes.findIndex(l => l.active)")

  def wait_for_takes(self, index, count):
    lane = f"looper.store.state.lanes[{index}]"
    self.wait(f"{lane}.takes.length === {count} && !looper.store.state.queue.length")

  def post(self, path, **body):
    script = """async (path, body) => (await fetch(path + location.search, {
      method: "POST", body, headers: { "Content-Type": "application/json" } })).json()"""
    return self.ask(script, path, json.dumps(body))

  def set_lane(self, index, **fields):
    self.post("/api/edit", op="set_lane", lane=self.lane(index)["id"], **fields)
    name = next(iter(fields))
    self.wait(f"looper.store.state.lanes[{index}].{name} === {json.dumps(fields[name])}")

  def fetch(self, path):
    base, _, query = self.address.partition("/?")
    with urllib.request.urlopen(f"{base}{path}?{query}", timeout=LONGEST_S) as answer:
      return answer.read()

  def read_take(self, take):
    """The samples of a take as the server has them, [channels, samples]."""
    data = io.BytesIO(self.fetch(f"/api/take/{take}.wav"))
    samples, rate_hz = soundfile.read(data, dtype="float32", always_2d=True)
    assert rate_hz == self.state["sample_rate"]
    return samples.T

  def render(self, **options):
    """What leaves the page's own graph: samples [2, n], the limiter's delay, its meter."""
    got = self.driver.execute_async_script(RENDER, options)
    assert "error" not in got, got
    channels = [np.frombuffer(base64.b64decode(text), np.float32) for text in got["channels"]]
    return np.stack(channels), got["latency"], got["meter"]

  def resize(self, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

  def colour(self, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

  def save_picture(self, path):
    """Writes a PNG of what can be seen."""
    data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(data))

  def check_log(self):
    """No error is in the browser's log, but for answers that refuse."""
    lines = [entry["message"] for entry in self.driver.get_log("browser")]
    assert not [line for line in lines if "Failed to load resource" not in line]
