# SPDX-License-Identifier: Apache-2.0
"""Many malformed requests and many takes leave the looper answering, and no larger."""

import json
import random
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MALFORMED, TAKES = 200, 20
PATHS = (
  "/api/edit",
  "/api/generate",
  "/api/cancel",
  "/api/upload",
  "/api/take/t1.wav",
)
ENDS = ("/nothing", "/static/%2e%2e", "/api/spectrogram/x.png", "/api/upload?lane=x&latency_s=nan")


def read_resident_kib(pid):
  """Returns how much memory a process and its children hold."""
  total = 0
  for line in Path(f"/proc/{pid}/status").read_text().splitlines():
    total += int(line.split()[1]) if line.startswith("VmRSS:") else 0
  for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
    total += read_resident_kib(child)
  return total


def send(address, path, body, **headers):
  """Returns the status of an answer."""
  base, _, token = address.partition("/?token=")
  headers = {"X-Looper-Token": token, **headers}
  request = urllib.request.Request(base + path, body, headers)
  try:
    with urllib.request.urlopen(request, timeout=120) as answer:
      return answer.status, answer.read()
  except urllib.error.HTTPError as error:
    with error:
      return error.code, error.read()


def send_malformed(address, rng):
  """Sends one request that is wrong in a way of its own."""
  path, kind = rng.choice(PATHS), rng.randrange(5)
  body = rng.randbytes(rng.randrange(1, 3000))
  if kind == 1:
    body = json.dumps(
      {"op": rng.choice(["set_lane", "set_song", 3]), "lane": [body.hex()]}
    ).encode()
  elif kind == 2:
    body = b'{"lane": ' + b"[" * rng.randrange(1, 9000)
  headers = {"X-Looper-Token": "wrong"} if kind == 3 else {}
  headers |= {"Origin": "http://evil.example"} if kind == 4 else {}
  return send(address, path, body, **headers)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_it_answers_and_stays_as_large_as_it_was(tmp_path):
  rng = random.Random(0)
  command = [
    sys.executable,
    "-m",
    "stemgen_jax.looper",
    "--no-open",
    "--session",
    str(tmp_path / "s"),
  ]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  try:
    address = process.stdout.readline().removeprefix("looper:").strip()

    def make(lane, kind):
      status, answer = send(
        address, "/api/generate", json.dumps({"lane": lane, "kind": kind}).encode()
      )
      assert status == 200, answer
      while (state := json.loads(send(address, "/api/state", None)[1]))["queue"]:
        time.sleep(0.1)
      assert state["model"]["status"] == "ready", state["model"]
      return state

    send(address, "/api/edit", b'{"op": "set_song", "bars": 1, "tempo_bpm": 120}')
    for number in range(6):  # what is kept of sounds is full then
      make(f"lane{number % 4 + 1}", "another" if number < 4 else "vary")
    held, begun = read_resident_kib(process.pid), time.monotonic()
    for number in range(TAKES):
      state = make(f"lane{number % 4 + 1}", "another" if number % 3 else "vary")
    spent_s = time.monotonic() - begun
    made = read_resident_kib(process.pid)
    statuses = [send_malformed(address, rng)[0] for _ in range(MALFORMED)]
    left = read_resident_kib(process.pid)
    print(f"{TAKES} takes in {spent_s:.0f} s; MiB before, after takes, after malformed requests:")
    print(held // 1024, made // 1024, left // 1024, {s: statuses.count(s) for s in set(statuses)})
    assert not {status for status in statuses if status >= 500 or status == 200}
    assert sum(len(lane["takes"]) for lane in state["lanes"]) == TAKES + 6
    assert json.loads(send(address, "/api/state", None)[1])["lanes"] == state["lanes"]
    assert made < held + 100 * 1024
    assert left < made + 30 * 1024
  finally:
    process.terminate()
    process.communicate()
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  print(f"{usage.ru_utime + usage.ru_stime:.0f} s of CPU in all")
