# SPDX-License-Identifier: Apache-2.0
import contextlib
import http.client
import io
import json
import re
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemgen_jax.audio import loudness
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.evaluate.listening_test import server as page
from stemgen_jax.evaluate.listening_test.opinions import (
  SETS,
  add_rating,
  mean_opinion_scores,
  read_ratings,
  tabulate_opinions,
)
from stemgen_jax.evaluate.listening_test.server import Server, listen
from stemgen_jax.evaluate.listening_test.trials import LEVEL_LU, plan, read_examples
from stemgen_jax.evaluate.metrics.intervals import bootstrap

RATE_HZ, COUNT = 16_000, 3
SECRET = re.compile(rf"\b({'|'.join(SETS)}|shifted|song\d|000\d)\b", re.IGNORECASE)
CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def report(music, tmp_path_factory):
  """Three examples whose stems differ in loudness, length, channels and rate."""
  folder, entries = tmp_path_factory.mktemp("listen") / "report", []
  mono = music[0, : 3 * RATE_HZ]
  for i in range(COUNT):
    at = folder / f"examples/{i:04d}"
    at.mkdir(parents=True)
    own = np.roll(mono, i * RATE_HZ // 2)
    sounds = {
      "context": (np.stack([own, 0.7 * own], axis=1), RATE_HZ),
      "true": (0.1 * own[::-1], RATE_HZ),
      "model": (np.concatenate([own[4000:], own])[: 3 * RATE_HZ - 500], RATE_HZ),
      "other": (0.9 * np.repeat(own[::-2], 2)[:, None] * [0.8, 1.0], 12_000),
      "shifted": (own, RATE_HZ),
    }
    for name, (samples, rate_hz) in sounds.items():
      soundfile.write(at / f"{name}.wav", samples, rate_hz)
    paths = {name: f"examples/{i:04d}/{name}.wav" for name in sounds}
    context = paths.pop("context")
    entries.append(
      {"id": f"{i:04d}", "song": f"song{i}", "category": "bass", "context": context, "sets": paths}
    )
  (folder / "examples.json").write_text(json.dumps(entries))
  return folder


@pytest.fixture
def own(report, tmp_path):
  """The report without ratings, for one test to change."""
  return Path(shutil.copytree(report, tmp_path / "report"))


@contextlib.contextmanager
def serving(report, rater="", seed=0):
  """A server that answers in a thread, with the function that asks it."""
  with Server(report, 0, rater, seed) as server:
    thread = threading.Thread(target=server.serve)
    thread.start()

    def ask(path, body=None, **headers):
      connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
      with contextlib.closing(connection):
        own = {"Content-Type": "application/json"} if body is not None else {}
        data = json.dumps(body) if isinstance(body, dict) else body
        method = "GET" if body is None else "POST"
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {**own, **names})
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.title(): v for k, v in answer.headers.items()}

    try:
      yield server, ask
    finally:
      server.stop()
      thread.join()


def rate(ask, trial, label, rating, rater="anna"):
  return ask("/rate", {"rater": rater, "trial": trial, "label": label, "rating": rating})


def read_wav(data):
  samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
  assert rate_hz == RATE_HZ
  return samples.T


def test_nothing_that_is_served_tells_which_stem_is_which(report):
  with serving(report) as (_, ask):
    answers = [ask("/"), ask("/start", {"rater": "anna"})]
    assert json.loads(answers[1][1]) == [[None] * 3] * COUNT
    for trial in range(COUNT):
      sounds = [ask(f"/audio/anna/{trial}/{name}.wav") for name in ("A", "B", "C", "context")]
      assert len({len(body) for _, body, _ in sounds}) == 1
      assert len({body[:44] for _, body, _ in sounds}) == 1  # the header of the file
      heads = [{k: v for k, v in head.items() if k != "Date"} for *_, head in sounds]
      assert heads[1:] == heads[:-1]
      answers += [(status, b"", head) for status, _, head in sounds]
    for status, body, head in answers:
      assert status == 200
      assert not SECRET.search(body.decode() + str(head))


def test_all_are_as_loud_as_each_other_over_the_same_context(report):
  with serving(report) as (_, ask):
    for trial in range(COUNT):
      context = read_wav(ask(f"/audio/anna/{trial}/context.wav")[1])
      wanted = loudness.measure_lufs(context, RATE_HZ) + LEVEL_LU
      for label in "ABC":
        mix = read_wav(ask(f"/audio/anna/{trial}/{label}.wav")[1])
        assert loudness.measure_true_peak(mix, RATE_HZ) < loudness.MOST_PEAK_DBTP + 0.05
        stem = loudness.measure_lufs(mix - context, RATE_HZ)
        assert abs(stem - wanted) < 0.3, (trial, label)


def test_letters_stand_for_the_files_of_the_plan(report):
  examples = read_examples(report)
  with serving(report, seed=4) as (_, ask):
    for trial, (example, sets) in enumerate(plan(examples, 4, "anna")):
      context = read_wav(ask(f"/audio/anna/{trial}/context.wav")[1])
      for label, name in zip("ABC", sets, strict=True):
        if name == "other":
          continue  # of another rate
        mix = read_wav(ask(f"/audio/anna/{trial}/{label}.wav")[1])
        stem, _ = soundfile.read(example.stems[list(SETS).index(name)])
        heard = (mix - context)[0, : len(stem)]
        assert np.corrcoef(heard, stem[: len(heard)])[0, 1] > 0.99


def test_the_order_is_of_seed_and_rater(report):
  examples = read_examples(report) * 20
  first = plan(examples, 0, "anna")
  assert first == plan(examples, 0, "anna")
  for seed, rater in ((1, "anna"), (0, "ben")):
    again = plan(examples, seed, rater)
    assert [one.name for one, _ in again] != [one.name for one, _ in first]
    assert [sets for _, sets in again] != [sets for _, sets in first]
  assert len({sets for _, sets in first}) == 6
  assert all(sorted(sets) == sorted(SETS) for _, sets in first)


def test_a_rating_is_on_disk_at_once_and_the_latest_counts(own):
  (example, sets), *_ = plan(read_examples(own), 0, "anna")
  with serving(own) as (_, ask):
    assert rate(ask, 0, "B", 2)[:2] == (200, b"null")
    lines = (own / "ratings/anna.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
      {
        "rater": "anna",
        "example": example.name,
        "song": example.song,
        "set": sets[1],
        "rating": 2,
      }
    ]
    rate(ask, 0, "B", 5)
    rate(ask, 0, "B", 1, rater="ben")
    assert read_ratings(own, "anna")[example.name, sets[1]]["rating"] == 5
  with serving(own) as (_, ask):
    assert json.loads(ask("/start", {"rater": "anna"})[1])[0] == [None, 5, None]
  with serving(own, seed=1) as (_, ask):  # in its new place
    found = json.loads(ask("/start", {"rater": "anna"})[1])
    assert sorted(str(rating) for row in found for rating in row) == ["5", *["None"] * 8]
    for (one, names), row in zip(plan(read_examples(own), 1, "anna"), found, strict=True):
      for name, rating in zip(names, row, strict=True):
        assert (rating == 5) == ((one.name, name) == (example.name, sets[1]))


@pytest.mark.parametrize(
  ("path", "body"),
  [
    ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": 6}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": 0}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": 3.0}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": True}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "D", "rating": 3}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "", "rating": 3}),
    ("/rate", {"rater": "anna", "trial": -1, "label": "A", "rating": 3}),
    ("/rate", {"rater": "anna", "trial": COUNT, "label": "A", "rating": 3}),
    ("/rate", {"rater": "../anna", "trial": 0, "label": "A", "rating": 3}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "A"}),
    ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": 3, "set": "model"}),
    ("/rate", "[" * 4000),
    ("/rate", "not JSON"),
    ("/rate", b"\xff"),
    ("/rate", "[]"),
    ("/start", {"rater": "Anna"}),
    ("/start", {"rater": ""}),
    ("/start", {"rater": "a" * 41}),
  ],
)
def test_a_wrong_body_is_one_line_and_is_not_saved(own, path, body):
  with serving(own) as (_, ask):
    status, text, _ = ask(path, body)
    assert status == 400
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
  assert not (own / "ratings").exists()


def test_only_the_page_itself_is_answered(own):
  body = {"rater": "anna", "trial": 0, "label": "A", "rating": 3}
  with serving(own) as (server, ask):
    home = f"127.0.0.1:{server.server_port}"
    refused = [
      ask("/", Host="evil.example"),
      ask("/", Host=f"evil.example:{server.server_port}"),
      ask("/rate", body, Host="evil.example", Origin="http://evil.example"),
      ask("/rate", body, Origin="http://evil.example"),
      ask("/rate", body, Origin="null"),
      ask("/rate", body, Origin=f"https://{home}"),
    ]
    assert [status for status, *_ in refused] == [403] * len(refused)
    assert ask("/rate", body, Content_Type="text/plain")[0] == 400
    assert ask("/rate", "", Content_Length="9999")[0] == 400
    assert ask("/rate", "", Content_Length="many")[0] == 400
    assert not (own / "ratings").exists()
    assert ask("/", Host="localhost:1")[0] == 200
    assert ask("/rate", body, Origin=f"http://{home}")[0] == 200


def test_there_is_nothing_else_to_fetch(report):
  with serving(report) as (_, ask):
    for path in (
      "/examples.json",
      "/examples/0000/true.wav",
      "/../examples.json",
      "/audio/anna/0/true.wav",
      f"/audio/anna/{COUNT}/A.wav",
      "/audio/anna/0/D.wav",
      "/audio/../0/A.wav",
      "/rate",
      "/a/",
      "/audio/anna/-1/A.wav",
    ):
      assert ask(path)[0] == 404, path
    assert ask("/", {})[0] == 404
    assert ask("/start")[0] == 404


def test_a_player_can_seek(report):
  with serving(report) as (_, ask):
    _, whole, head = ask("/audio/anna/0/A.wav")
    assert head["Accept-Ranges"] == "bytes"
    size = len(whole)
    for words, part in (
      ("bytes=0-", slice(0, size)),
      ("bytes=100-199", slice(100, 200)),
      ("bytes=-50", slice(size - 50, size)),
      (f"bytes=100-{10 * size}", slice(100, size)),
    ):
      status, body, head = ask("/audio/anna/0/A.wav", Range=words)
      assert (status, body) == (206, whole[part])
      assert head["Content-Range"] == f"bytes {part.start}-{part.stop - 1}/{size}"
    for words in (f"bytes={size}-", "bytes=-0"):
      assert ask("/audio/anna/0/A.wav", Range=words)[0] == 416
    for words in ("bytes=9-8", "bytes=-", "rows=1-2", "bytes=" + "9" * 5000 + "-"):
      assert ask("/audio/anna/0/A.wav", Range=words)[0] == 400
    assert ask("/audio/anna/0/A.wav", Range="bytes=0-1,4-5")[0] == 206


def test_a_browser_that_leaves_is_no_error(report, capsys):
  with serving(report) as (server, ask):
    for _ in range(3):
      with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # reset, do not close
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.sendall(b"GET /audio/anna/0/A.wav HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ask("/")[0] == 200
  assert capsys.readouterr().err == ""


def test_a_silent_context_and_a_silent_stem_can_be_heard_too(own):
  for name in ("context", "model"):
    soundfile.write(own / f"examples/0000/{name}.wav", np.zeros((2 * RATE_HZ, 1)), RATE_HZ)
  with serving(own) as (_, ask):
    places = [
      (i, sets)
      for i, (one, sets) in enumerate(plan(read_examples(own), 0, "anna"))
      if one.name == "0000"
    ]
    ((trial, sets),) = places
    sounds = {
      name: read_wav(ask(f"/audio/anna/{trial}/{label}.wav")[1])
      for name, label in zip(sets, "ABC", strict=True)
    }
  assert not sounds["model"].any()
  found = [loudness.measure_lufs(sounds[name], RATE_HZ) for name in ("true", "other")]
  assert abs(found[0] - found[1]) < 0.3


def test_the_command_ends_with_the_page_and_prints_the_scores(own, capsys):
  failed = []

  def act(address):
    port = int(address.rsplit(":")[-1].strip("/"))
    for path, body in (
      ("/rate", {"rater": "anna", "trial": 0, "label": "A", "rating": 4}),
      ("/finish", {}),
    ):
      connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
      with contextlib.closing(connection):
        head = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), head)
        failed.append(connection.getresponse().status != 200)

  class Acting(Server):
    def serve(self):
      thread = threading.Thread(target=act, args=(self.address,))
      thread.start()
      super().serve()
      thread.join()

  class Interrupted(Server):
    def serve(self):
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(page, "Server", Interrupted)
    assert run_cli(lambda: listen(own)) == 0
    assert "No ratings yet" in capsys.readouterr().out
    patch.setattr(page, "Server", Acting)
    assert run_cli(lambda: listen(own, rater="anna")) == 0
  assert failed == [False, False]
  first, *table = capsys.readouterr().out.splitlines()
  assert re.search(r"http://127\.0\.0\.1:\d+/", first)
  name = plan(read_examples(own), 0, "anna")[0][1][0]
  assert table[2] == f"| {SETS[name]} | 4.00 | 4.00 to 4.00 | 1 | 1 | 1 |"


def test_mistakes_are_one_line(own, tmp_path, capsys):
  entries = json.loads((own / "examples.json").read_text())

  def refuse(complaint, text=None, **options):
    if text is not None:
      (own / "examples.json").write_text(text)
    assert run_cli(lambda: listen(options.pop("report", own), **options)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1

  with socket.create_server(("127.0.0.1", 0)) as taken:
    refuse("free port", port=taken.getsockname()[1])
  refuse("free port", port=70_000)
  refuse("rater's name", rater="a/b")
  (own / "ratings").mkdir()
  for line in ("{", "[]", '{"rater": "anna"}'):
    (own / "ratings/anna.jsonl").write_text(line + "\n")
    refuse("line 1 of", rater="anna")
  refuse("examples.json", report=tmp_path / "nothing")
  refuse("examples.json", "{")
  refuse("list of at least one", "[]")
  refuse("list of at least one", "{}")
  refuse("example 1 of", "[3]")
  refuse("ids", json.dumps(entries * 2))
  for name in ("id", "song", "context", "sets"):
    refuse("example 2 of", json.dumps([entries[0], {**entries[1], name: 3}]))
  lacking = {**entries[0], "sets": {"true": "a.wav", "model": "b.wav"}}
  refuse("example 1 of", json.dumps([lacking]))
  missing = {**entries[0], "context": "gone.wav"}
  refuse("gone.wav", json.dumps([missing]))


def test_ratings_that_cannot_be_written_are_an_error(own):
  (own / "ratings").write_text("a file")
  with serving(own) as (_, ask):
    status, text, _ = rate(ask, 0, "A", 3)
    assert status == 400
    assert b"must be a folder" in text
  (own / "ratings").unlink()
  (own / "ratings/anna.jsonl").mkdir(parents=True)
  with pytest.raises(UserError, match="must be a file that can be written"):
    add_rating(own, "anna", "0000", "song0", "true", 3)


def test_mean_opinion_scores_are_of_latest_ratings_and_whole_songs(tmp_path):
  with pytest.raises(UserError, match=r"must be a folder that exists; got .*nowhere, none"):
    mean_opinion_scores(tmp_path / "nowhere")
  with pytest.raises(UserError, match="must hold ratings"):
    mean_opinion_scores(tmp_path)
  for rater in ("anna", "ben"):
    add_rating(tmp_path, rater, "0", "x", "true", 1)  # changed below
    for example, song, true, model in (("0", "x", 5, 1), ("1", "x", 5, 2), ("2", "y", 3, 3)):
      add_rating(tmp_path, rater, example, song, "true", true)
      add_rating(tmp_path, rater, example, song, "model", model)
  add_rating(tmp_path, "ben", "3", "z", "model", 3)
  true, model = mean_opinion_scores(tmp_path)
  assert true == {
    "set": "true",
    "mos": 13 / 3,
    "low": 3,
    "high": 5,
    "ratings": 6,
    "raters": 2,
    "songs": 2,
  }
  assert model["mos"] == pytest.approx(15 / 7)
  assert (model["ratings"], model["songs"]) == (7, 3)
  table = tabulate_opinions([true, model]).splitlines()
  assert table[2] == "| the song's own stem | 4.33 | 3.00 to 5.00 | 6 | 2 | 2 |"


@pytest.mark.parametrize("names", [np.arange(100), np.arange(100).astype(str)])
def test_the_interval_draws_whole_songs(names):
  two = np.repeat(names[:2], 50)
  assert bootstrap(np.repeat([0.0, 1.0], 50), two) == (0, 1)  # however many examples they have
  low, high = bootstrap(np.arange(100) % 2.0, names)
  assert 0.35 < low < 0.5 < high < 0.65
  assert bootstrap(np.array([1.0, 4.0]), names[[0, 0]]) == (2.5, 2.5)


@pytest.fixture
def browser(tmp_path):
  """A headless Chromium that keeps nothing and asks nobody."""
  webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
  if not (CHROMIUM.is_file() and CHROMEDRIVER.is_file()):
    pytest.skip(f"needs Debian's {CHROMIUM} and {CHROMEDRIVER}")
  options = webdriver.ChromeOptions()
  options.binary_location = str(CHROMIUM)
  for flag in (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "autoplay-policy=no-user-gesture-required",
    "window-size=1100,900",
    f"user-data-dir={tmp_path / 'profile'}",
  ):
    options.add_argument(f"--{flag}")
  service = webdriver.ChromeService(str(CHROMEDRIVER))
  driver = webdriver.Chrome(options=options, service=service)
  try:
    yield driver
  finally:
    driver.quit()


def test_a_person_can_rate_all_of_it_in_a_browser(own, browser):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys
  from selenium.webdriver.support.wait import WebDriverWait

  def find(selector):
    return browser.find_element(By.CSS_SELECTOR, selector)

  def wait(until):
    return WebDriverWait(browser, 15, 0.02).until(lambda _: until())

  def give(label, rating):
    find(f"input[name={label}][value='{rating}']").click()

  def press(name):
    wait(find(f"#{name}").is_enabled)
    find(f"#{name}").click()

  def enter(server, name):
    browser.get(server.address)
    find("#rater").send_keys(name, Keys.ENTER)
    wait(lambda: find("#count, #thanks").text or find("#thanks").is_displayed())

  given = {0: (1, 2, 3), 1: (5, 4, 4), 2: (2, 1, 5)}
  with serving(own) as (server, _):
    browser.get(server.address)
    find("#rater").send_keys("no/name", Keys.ENTER)
    assert not find("#trial").is_displayed()
    enter(server, "anna")
    for trial, ratings in given.items():
      wait(lambda trial=trial: find("#count").text == f"{trial + 1} of {COUNT}")
      for label, rating in zip("ABC", ratings, strict=True):
        assert not find("#next").is_enabled()
        give(label, rating)
      if trial == 0:
        check_players(browser, wait)
      press("next")
    wait(find("#thanks").is_displayed)
    press("return")
    press("back")
    assert find("input[name=A]:checked").get_attribute("value") == "5"
    find("input[name=A]:checked").send_keys(Keys.ARROW_LEFT)  # by keyboard: to 4
    wait(lambda: read_ratings(own, "anna")[at(own, 1, 0)]["rating"] == 4)
    browser.get(server.address)  # closed, and come back: nothing is lost
    enter(server, "anna")
    wait(find("#thanks").is_displayed)
    press("finish")
    wait(find("#over").is_displayed)
    assert not find("#problem").is_displayed()
    assert [one for one in browser.get_log("browser") if "favicon" not in one["message"]] == []
  given[1] = (4, 4, 4)
  found = {place: row["rating"] for place, row in read_ratings(own, "anna").items()}
  assert found == {at(own, trial, i): given[trial][i] for trial in given for i in range(3)}


def at(report, trial, i):
  """Returns the example and set of a place of anna's test."""
  example, sets = plan(read_examples(report), 0, "anna")[trial]
  return example.name, sets[i]


def check_players(browser, wait):
  """All four have loaded real sound, can play and seek, and stop each other."""

  def run(code):
    return browser.execute_script(f"const players = document.querySelectorAll('audio'); {code}")

  wait(lambda: run("return [...players].every((player) => player.readyState === 4)"))
  assert run("return [...players].map((player) => player.duration)") == [3.0] * 4
  assert all(run("return [...players].map((player) => player.ariaLabel)"))
  run("players[1].currentTime = 2; players[1].play()")
  wait(lambda: run("return players[1].currentTime") > 2)
  run("players[2].play()")
  wait(lambda: run("return players[1].paused && !players[2].paused"))


def test_the_page_tells_when_a_rating_was_not_saved(own, browser):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.support.wait import WebDriverWait

  with serving(own, rater="anna") as (server, _):
    browser.get(server.address)
    WebDriverWait(browser, 15).until(
      lambda _: browser.find_element(By.ID, "count").text == f"1 of {COUNT}"
    )
    (own / "ratings").write_text("a file")
    choice = browser.find_element(By.CSS_SELECTOR, "input[name=A]")
    choice.click()
    problem = browser.find_element(By.ID, "problem")
    WebDriverWait(browser, 15).until(lambda _: problem.is_displayed())
    assert problem.text.startswith("Not saved. REPORT/ratings must be a folder")
    assert not choice.is_selected()
