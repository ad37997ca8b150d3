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
