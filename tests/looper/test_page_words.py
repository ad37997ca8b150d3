# SPDX-License-Identifier: Apache-2.0
"""What the page says and for how long, and what its fields take, in a real browser."""

import pytest
from page_driver import Page, open_browser, serve, write_loop

SAY = """(text, kind, how) => import("/static/say.js").then(({ say }) => say(text, kind, how))"""
FAST = """window.lives = [];
  const real = window.setTimeout;
  window.setTimeout = (act, ms, ...rest) => {
    if (ms > 1000) lives.push(ms);
    return real(act, ms > 1000 ? 10 : ms, ...rest);
  };"""


ENTER = "\ue007"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  """The page of a session with a loop in its first lane."""
  folder = tmp_path_factory.mktemp("looper")
  with serve(folder / "session") as looper, open_browser(folder) as driver:
    page = Page(driver, looper.address)
    page.begin(write_loop(folder / "loop.wav"))
    yield page
    page.check_log()


def test_an_error_goes_when_its_reason_is_gone(page):
  page.set_lane(0, lock=True)
  page.in_lane(0, ".generate").click()
  page.wait_for_message("is locked")
  page.wait("document.querySelector('[role=alert]').textContent.includes('is locked')")
  page.set_lane(0, lock=False)
  page.wait("!document.querySelector('.message.error')")
  assert page.run("return document.querySelector('[role=alert]').textContent") == ""


def test_an_error_is_closed_by_its_button(page):
  page.ask(SAY, "It went wrong.", "error", {})
  page.wait_for_message("It went wrong.")
  page.wait("document.querySelector('[role=alert]').textContent")
  page.click(".message.error button")
  assert not page.all(".message.error")
  assert page.run("return document.querySelector('[role=alert]').textContent") == ""


def test_messages_go_by_themselves_and_errors_later_than_notices(page):
  page.run(FAST)
  words = "Something was to be said."
  page.ask(SAY, words, "info", {})
  page.ask(SAY, words + ".", "error", {})
  page.wait("!document.querySelector('.message')")
  notice_ms, error_ms = page.run("return lives")[:2]
  assert error_ms > 1.5 * notice_ms
  assert error_ms < 60_000
  page.ask(SAY, "The connection is lost.", "error", {"key": "x", "stays": True})
  assert len(page.run("return lives")) == 2
  page.click(".message button")
  page.driver.refresh()
  page.wait("window.looper && looper.store.state")


def type_in(page, selector, text):
  page.run("arguments[0].select()", page.find(selector))
  page.find(selector).send_keys(text)


@pytest.mark.parametrize(
  ("selector", "text", "rule"),
  [
    ("#tempo", "999", "Tempo must be a number from 20 to 480, so it is 120 again."),
    ("#tempo", "-", "Tempo must be a number from 20 to 480, so it is 120 again."),
    ("#bars", "2.5", "Bars must be a whole number from 1 to 64, so it is 2 again."),
    ("#beats", "0", "Beats a bar must be a whole number from 1 to 16, so it is 4 again."),
    ("#offset", "601", "Starts at must be a number from 0 to 600, so it is 0 again."),
    (".seed input", "4294967296", "Seed must be a whole number from 0 to 4294967295, so it is"),
  ],
)
def test_what_is_out_of_range_is_refused_when_the_field_is_left(page, selector, text, rule):
  before, shown = page.state, page.find(selector).get_attribute("value")
  type_in(page, selector, text)
  page.find("#volume").click()
  page.wait_for_message(rule)
  assert page.find(selector).get_attribute("value") == shown
  type_in(page, selector, text + ENTER)
  page.wait(f"document.activeElement !== document.querySelector({selector!r})")
  assert page.find(selector).get_attribute("value") == shown
  assert (page.state["song"], page.state["lanes"]) == (before["song"], before["lanes"])


def test_what_the_looper_refuses_does_not_stay_in_the_field(page):
  type_in(page, "#tempo", "20" + ENTER)
  page.wait("looper.store.state.song.tempo_bpm === 20")
  type_in(page, "#bars", "64" + ENTER)
  page.wait_for_message("A loop must last from 0.5 to 120 s")
  page.wait("document.querySelector('#bars').value === '2'")
  type_in(page, "#bars", "1" + ENTER)
  page.wait("looper.store.state.song.bars === 1")
  page.wait("!document.querySelector('.message.error')")
  assert page.find("#bars").get_attribute("value") == "1"


def test_the_seed_in_the_field_is_that_of_the_next_take(page):
  lane = next(i for i, one in enumerate(page.state["lanes"]) if not one["takes"])
  for count in (1, 2):
    seed = page.in_lane(lane, ".seed input").get_attribute("value")
    page.in_lane(lane, ".generate").click()
    page.wait_for_takes(lane, count)
    assert page.lane(lane)["takes"][-1]["seed"] == int(seed)


def test_a_tempo_typed_before_anything_is_begun_stays(page, tmp_path):
  with serve(tmp_path / "session") as looper:
    other = Page(page.driver, looper.address)
    type_in(other, "#way-silence [name=tempo]", "90")
    type_in(other, "#way-silence [name=bars]", "99")
    other.find("#way-silence [name=beats]").click()
    other.wait_for_message("Bars must be a whole number from 1 to 64, so it is 5 again.")
    other.set_lane(0, mute=True)
    assert other.find("#way-silence [name=tempo]").get_attribute("value") == "90"
    other.click("#way-silence button")
    other.wait("looper.store.state.loop_samples")
    assert (other.state["song"]["tempo_bpm"], other.state["song"]["bars"]) == (90, 5)
  page.driver.get(page.address)
  page.wait("window.looper && looper.store.state")


def test_a_button_says_why_a_take_waits_and_a_recording_has_one_way_out(page):
  compiling = "{ ...looper.store.server.model, status: 'compiling' }"
  entry = (
    "{ job: 'job99', lane: looper.store.state.lanes[0].id, kind: 'generate', status: 'waiting' }"
  )
  page.ask(
    f"""() => import("/static/store.js").then(({{ applyState, store }}) =>
      applyState({{ ...store.server, model: {compiling}, queue: [{entry}] }}))"""
  )
  assert page.in_lane(0, ".words").text == "waits for the model"
  page.ask("() => looper.refresh()")
  page.press("r")
  page.wait("document.querySelector('#latency').value")
  assert page.find("#record-close").is_displayed()
  page.click("#record-start")
  page.wait("document.querySelector('#record-start').textContent === 'Cancel'")
  assert not page.find("#record-close").is_displayed()
  page.click("#record-start")
  assert not page.find("#record-dialog").is_displayed()


def test_an_undo_that_meets_a_take_leaves_it_until_it_is_pressed_again(page):
  lane = next(i for i, one in enumerate(page.state["lanes"]) if not one["takes"])
  page.run("looper.store.arrived = { at: performance.now(), words: 'Take A of bass' }")
  before = page.state["revision"]
  page.press("z")
  page.wait_for_message("Take A of bass has just come. Undo once more takes it back.")
  assert page.state["revision"] == before
  page.in_lane(lane, ".generate").click()
  page.wait_for_takes(lane, 1)
  page.wait("performance.now() - looper.store.arrived.at > 800")
  page.press("z")
  page.wait(f"looper.store.state.lanes[{lane}].takes.length === 0")


def test_where_there_is_no_lane_or_no_room_for_one_it_is_said(page):
  while len(page.state["lanes"]) < 16:
    page.post("/api/edit", op="add_lane", instrument="bass")
  page.wait("looper.store.state.lanes.length === 16")
  add = page.find("#add button")
  assert not add.is_enabled()
  for lane in page.state["lanes"]:
    page.post("/api/edit", op="remove_lane", lane=lane["id"])
  page.wait("!document.querySelector('#none').hidden")
  assert add.is_enabled()
  page.press("z")
  page.wait("looper.store.state.lanes.length === 1 && document.querySelector('#none').hidden")


def test_an_old_address_is_answered_with_a_sentence(page):
  page.driver.get(page.address.partition("token=")[0] + "token=old")
  assert page.find("body").text.startswith("the token is missing or another")
  page.driver.get(page.address)
  page.wait("window.looper && looper.store.state")
  page.driver.get_log("browser")
