# SPDX-License-Identifier: Apache-2.0
"""The example of the package as a session's first sound."""

from served import serving


def test_the_example_is_the_first_sound_and_its_lane_is_on_top(tmp_path):
  with serving(tmp_path / "mine") as looper:
    before = [lane["id"] for lane in looper.state()["lanes"]]
    state = looper.post("/api/example")
    first, *others = state["lanes"]
    assert [lane["id"] for lane in others] == before
    assert first["name"] == "example"
    assert [take["origin"] for take in first["takes"]] == ["file"]
    assert state["loop_samples"] > 0
    (source,) = looper.desk.session.folder.glob("sources/*")
    assert source.suffix == ".ogg"
    again = looper.post("/api/example")["lanes"]
    assert again[0]["id"] == first["id"]
    assert again[-1]["name"] == "example"
