# SPDX-License-Identifier: Apache-2.0
"""The looper's page, played in a real browser."""

import importlib.resources
import re
import zipfile

import pytest
from page_driver import ROOT, Page, open_browser, serve, write_loop

from stemgen_jax.categories import CATEGORIES

PAGE = ROOT / "stemgen_jax/looper/page"
PICTURES = ROOT / "runs/looper"
WIDTHS = {320: 640, 390: 844, 820: 1100, 1280: 900, 2560: 1440}
ALL_INSTRUMENTS = """for (const list of document.querySelectorAll("#add select, .instrument")) {
  for (const name of arguments[0]) list.add(new Option(name));
}"""  # a model knows more than are recorded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("looper")


@pytest.fixture(scope="module")
def browser(folder):
  with open_browser(folder) as driver:
    yield driver


@pytest.fixture(scope="module")
def looper(folder):
  with serve(folder / "session") as found:
    yield found


@pytest.fixture
def page(browser, looper):
  """The page as the tests before have left it; no error may come up in it."""
  page = Page(browser, looper.address)
  yield page
  page.check_log()


@pytest.fixture
def begun(page, folder):
  """The page with a loop in one lane, and others empty: `empty` has their indices."""
  if not page.state["loop_samples"]:
    page.begin(write_loop(folder / "my loop.wav"))
  page.empty = [i for i, lane in enumerate(page.state["lanes"]) if not lane["takes"]]
  return page


def find_faults(page):
  """What axe-core says against the page."""
  package = pytest.importorskip("axe_core_python", reason="it ships axe-core")
  page.run((importlib.resources.files(package) / "axe.min.js").read_text())
  found = page.ask("() => axe.run({ resultTypes: ['violations'] })")["violations"]
  return [(fault["id"], [node["target"] for node in fault["nodes"]]) for fault in found]


def test_the_page_needs_nothing_from_outside():
  for path in PAGE.iterdir():
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, path
    assert "SPDX-License-Identifier: Apache-2.0" in text, path
    assert not re.search(r"https?://|@import", text), path


def test_the_welcome_shuts_nobody_out(page):
  assert page.find("#welcome").is_displayed()
  for scheme in ("dark", "light"):
    page.colour(scheme)
    assert find_faults(page) == []


def test_a_file_that_is_no_sound_is_said_and_nothing_begins(page, tmp_path):
  (tmp_path / "bad.wav").write_bytes(b"RIFF no sound at all")
  page.open(tmp_path / "bad.wav")
  page.wait_for_message("cannot be read as sound")
  page.wait("document.querySelector('#alert').textContent.includes('bad.wav')")
  assert page.state["loop_samples"] == 0


def test_a_sound_becomes_a_loop_and_lanes_are_written_to_it(begun):
  assert begun.state["loop_samples"] == 4 * begun.state["sample_rate"]
  assert begun.find("#bars").get_attribute("value") == "2"
  assert begun.find("#tempo").get_attribute("value") == "120"
  first, second, *_ = begun.empty
  begun.in_lane(first, ".generate").click()
  begun.wait_for_takes(first, 1)
  begun.in_lane(second, ".badge").click()
  begun.press("g")
  begun.wait_for_takes(second, 1)
  begun.wait(f"document.querySelectorAll('.timing')[{first}].textContent.startsWith('ready after')")


def test_a_take_comes_in_at_the_bar(begun):
  number = next(i for i, lane in enumerate(begun.state["lanes"]) if lane["takes"])
  lane = f"looper.store.state.lanes[{number}]"
  strip = f"looper.player.engine.lanes.get({lane}.id)"
  begun.press(" ")
  begun.wait("looper.player.engine?.playing")
  begun.in_lane(number, ".another").click()
  begun.wait_for_takes(number, 2)
  a, b = (take["id"] for take in begun.lane(number)["takes"])
  begun.wait(f"{strip}.voice?.id === '{b}'")
  begun.wait(
    f"document.querySelectorAll('.timing')[{number}].textContent.startsWith('heard after')"
  )
  begun.in_lane(number, ".take").click()
  coming = begun.wait(f"document.querySelectorAll('.coming')[{number}].textContent")
  assert re.fullmatch(r"A comes in \d\.\d s", coming)
  begun.wait(f"{strip}.voice?.id === '{a}' && !{strip}.next")
  bar = begun.state["loop_samples"] // 2
  assert begun.run(f"return ({strip}.voice.from - looper.player.engine.origin) % {bar}") == 0
  begun.press("z")
  begun.wait(f"{lane}.active === '{b}'")
  begun.press("Z")
  begun.wait(f"{lane}.active === '{a}'")
  begun.press(" ")
  begun.wait("!looper.player.engine.playing")


def test_a_loop_of_another_length_is_heard_without_a_gap(begun):
  begun.press(" ")
  begun.wait("looper.player.engine?.playing")
  begun.run("""window.silent = 0;
    const watch = setInterval(() => { silent += !looper.player.engine.playing; }, 5);
    setTimeout(clearInterval, 60000, watch);""")
  before = begun.state["loop_samples"]
  for bars in (4, 2):
    begun.post("/api/edit", op="set_song", bars=bars)
    begun.wait(f"looper.player.engine.frames === {before * bars // 2}")
    begun.wait("![...looper.player.engine.lanes.values()].some((strip) => strip.next)")
    assert begun.run("return looper.player.engine.bars") == bars
  assert begun.run("return silent") == 0
  assert not begun.all(".message.error")
  begun.press(" ")
  begun.wait("!looper.player.engine.playing")


def test_what_is_cancelled_leaves_nothing(begun):
  *_, last = begun.empty
  begun.ask(
    """(lane) => new Promise((done) => {
    const at = (name) => document.querySelectorAll(".lane")[lane].querySelector(name);
    at(".generate").click();
    const timer = setInterval(() => {
      if (at(".cancel").hidden || !document.querySelector("#queue li")) return;
      clearInterval(timer);
      at(".cancel").click();
      done();
    }, 5);
  })""",
    last,
  )
  begun.wait("!looper.store.state.queue.length && !document.querySelector('#queue li')")
  assert begun.lane(last)["takes"] == []
  assert begun.in_lane(last, ".words").text == "Generate"


def test_what_is_marked_stays_and_the_rest_is_asked_for(begun):
  number = next(i for i, lane in enumerate(begun.state["lanes"]) if lane["takes"])
  before = len(begun.lane(number)["takes"])
  screen = begun.in_lane(number, ".screen")
  screen.send_keys("\ue014")  # the right arrow: the first beat
  assert begun.in_lane(number, ".kept").text == "Stays: bar 1, beat 1 to bar 1, beat 2"
  begun.press("\ue00c")  # Escape
  assert not begun.in_lane(number, ".kept").is_displayed()
  drag_over(begun, screen, 0.25, 0.74)
  assert begun.in_lane(number, ".kept").text == "Stays: bar 1, beat 3 to bar 2, beat 3"
  begun.in_lane(number, ".generate").click()
  begun.wait_for_takes(number, before + 1)
  assert begun.lane(number)["takes"][-1]["origin"] == "kept"


def drag_over(page, element, start, end):
  from selenium.webdriver import ActionChains

  width = element.size["width"]
  chain = ActionChains(page.driver, 0).move_to_element_with_offset(
    element, int((start - 0.5) * width), 0
  )
  chain.click_and_hold().move_by_offset(int((end - start) * width), 0).release().perform()


def test_keys_mute_choose_and_tell(begun):
  lane = "looper.store.state.lanes[1]"
  begun.press("2")
  begun.wait(f"{lane}.mute")
  assert begun.in_lane(1, ".mute").get_attribute("aria-pressed") == "true"
  begun.press("2")
  begun.wait(f"!{lane}.mute")
  begun.in_lane(1, ".badge").click()
  begun.press("\ue015")  # down
  begun.wait("looper.store.selected === looper.store.state.lanes[2].id")
  begun.press("?")
  assert begun.find("#help-dialog").is_displayed()
  assert find_faults(begun) == []
  begun.click("#help-dialog button")
  begun.in_lane(0, ".name").send_keys(" g2 ")  # letters in a name are letters
  assert not begun.lane(1)["mute"]
  assert not begun.state["queue"]


def test_nothing_is_written_over_a_locked_lane(begun):
  begun.set_lane(0, lock=True)
  begun.in_lane(0, ".generate").click()
  begun.wait_for_message("is locked")
  assert not begun.state["queue"]
  begun.set_lane(0, lock=False)


def test_a_reload_and_an_export_have_everything(begun, browser, folder):
  before = begun.state
  browser.refresh()
  begun.wait("window.looper && looper.store.state")
  assert begun.state["lanes"] == before["lanes"]
  assert begun.state["song"] == before["song"]
  shown = [
    [take.text for take in lane.find_elements("css selector", ".take")]
    for lane in begun.all(".lane")
  ]
  assert shown == [[take["label"] for take in lane["takes"]] for lane in before["lanes"]]
  begun.click("#export")
  begun.wait_for_message("is written")
  (saved,) = begun.poll(lambda: list((folder / "saved").glob("*.zip")))
  with zipfile.ZipFile(saved) as archive:
    names = archive.namelist()
  assert {"mix.wav", "settings.json"} <= {name.rpartition("/")[2] for name in names}
  sounding = sum(bool(lane["active"]) for lane in before["lanes"])
  assert sum(name.endswith(".wav") for name in names) >= sounding + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_shuts_nobody_out_at_every_width(begun, width):
  begun.resize(width, WIDTHS[width])
  begun.run("looper.play()")
  begun.wait("looper.player.engine?.playing")
  for scheme in ("dark", "light"):
    begun.colour(scheme)
    begun.save_picture(PICTURES / f"{scheme}_{width}.png")
    begun.run(ALL_INSTRUMENTS, CATEGORIES)
    assert begun.run("return document.documentElement.scrollWidth") == width
  begun.colour("dark" if width in (390, 1280) else "light")
  assert find_faults(begun) == []
  small = """const touched = document.querySelectorAll("button, select, input:not([type=range])");
    return [...touched].filter((node) => node.checkVisibility()).filter((node) => {
      const { width, height } = node.getBoundingClientRect();
      return Math.min(width, height) < 24; }).map((node) => node.outerHTML)"""
  assert begun.run(small) == []
  begun.run("looper.stop()")


def test_a_dialog_fits_a_narrow_page_though_a_lane_has_a_long_name(begun):
  begun.resize(320, 640)
  begun.set_lane(0, name="a lane whose name goes on and on and on, as names of files do")
  begun.find("#record").click()
  begun.wait("document.querySelector('#record-dialog').open && !!looper.player.engine")
  fits = "const { scrollWidth, clientWidth } = arguments[0]; return scrollWidth <= clientWidth"
  assert begun.run(fits, begun.find("#record-dialog"))
  begun.find("#record-close").click()
  begun.set_lane(0, name="drums")


def test_a_second_tab_is_told_and_silences_the_first(begun, browser):
  first = browser.current_window_handle
  begun.press(" ")
  begun.wait("looper.player.engine?.playing")
  browser.switch_to.new_window("tab")
  second = Page(browser, begun.address)
  second.wait_for_message("open in another tab")
  second.press(" ")
  second.wait("looper.player.engine?.playing")
  browser.switch_to.window(first)
  begun.wait("!looper.player.engine.playing")
  begun.wait_for_message("Another tab plays")
  browser.switch_to.window(browser.window_handles[-1])
  browser.close()
  browser.switch_to.window(first)


def test_a_lost_connection_is_said_and_loses_nothing(begun, browser, looper):
  lanes = begun.state["lanes"]
  begun.press(" ")
  begun.wait("looper.player.engine?.playing")
  looper.stop()
  begun.wait_for_message("connection to the looper is lost")
  begun.in_lane(0, ".generate").click()
  begun.wait_for_message("does not answer")
  assert begun.run("return looper.player.engine.playing")
  begun.driver.get_log("browser")  # it says that nobody answers
  looper.start()
  assert Page(browser, looper.address).state["lanes"] == lanes
