# SPDX-License-Identifier: Apache-2.0
"""What is written appears whole, and what stood there survives every way of failing."""

import json
import os
from pathlib import Path

import pytest

from stemgen_jax.errors import UserError
from stemgen_jax.shell.flags import build_parser
from stemgen_jax.shell.folders import (
  appearing,
  claim_folder,
  is_sealed,
  keep_what_is_read,
  make_folder,
  refuse_folder,
  refuse_patterns,
  seal,
  write_text,
)


def write_folder(path, text):
  with appearing(path) as partial:
    partial.mkdir()
    (partial / "a.txt").write_text(text)


def test_a_file_or_a_folder_takes_the_place_of_what_is_there(tmp_path):
  for text in ("one", "two"):
    write_folder(tmp_path / "folder", text)
    with appearing(tmp_path / "file.txt") as partial:
      partial.write_text(text)
    assert (tmp_path / "folder/a.txt").read_text() == (tmp_path / "file.txt").read_text() == text
  assert sorted(p.name for p in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_a_file_never_takes_the_place_of_a_folder_or_a_pipe(tmp_path):
  write_folder(tmp_path / "music.wav", "mine")
  with pytest.raises(UserError, match=r"must be a file's name; got .*music.wav, a folder"):
    write_text(tmp_path / "music.wav", "new")
  assert (tmp_path / "music.wav/a.txt").read_text() == "mine"
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="a device or a pipe"):
    write_text(tmp_path / "pipe", "new")
  for path in (Path("."), tmp_path / "music.wav"):
    with pytest.raises(UserError, match="--json must be a file's name"):
      refuse_folder(path, "--json")
  with pytest.raises(UserError, match="a folder"):
    write_text(Path("."), "new")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["music.wav", "pipe"]


def test_a_failure_leaves_what_was_there_and_nothing_of_the_attempt(tmp_path):
  write_folder(tmp_path / "folder", "before")
  with pytest.raises(TypeError):
    write_folder(tmp_path / "folder", 1)  # no text: it fails with an empty file written
  with pytest.raises(FileNotFoundError), appearing(tmp_path / "folder"):
    pass  # nothing was made, so that the second rename fails
  assert [p.name for p in tmp_path.iterdir()] == ["folder"]
  assert (tmp_path / "folder/a.txt").read_text() == "before"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
  write_folder(tmp_path / "folder", "before")
  (tmp_path / "folder").rename(tmp_path / ".folder.replaced")
  with pytest.raises(OSError, match="full"), appearing(tmp_path / "folder"):
    raise OSError("full")
  assert (tmp_path / "folder/a.txt").read_text() == "before"


def test_a_buckets_address_makes_no_folder_of_that_name_here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    UserError, match=r"--workdir must be a path of this machine; got gs://bucket/run, an"
  ):
    make_folder(Path("gs://bucket/run"), "--workdir")
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_read_is_never_written(tmp_path):
  loop, other = tmp_path / "takes/loop.wav", tmp_path / "takes/other.wav"
  loop.parent.mkdir()
  for path in (loop, other):
    path.write_bytes(b"x")
  (tmp_path / "link.wav").symlink_to(loop)
  (tmp_path / "hard.wav").hardlink_to(loop)
  (tmp_path / "linked").symlink_to(loop.parent, target_is_directory=True)
  written = [loop, tmp_path / "takes/new.wav"]
  for name in (
    "takes/loop.wav",
    "takes/../takes/loop.wav",
    "link.wav",
    "hard.wav",
    "linked/loop.wav",
  ):
    with pytest.raises(UserError, match=r"--context must not be a file that this command writes"):
      keep_what_is_read({"--stem": other, "--context": tmp_path / name}, written)
  with pytest.raises(UserError, match="--context"):  # not there yet, but by another name
    keep_what_is_read({"--context": tmp_path / "linked/new.wav"}, written)
  keep_what_is_read({"--stem": other, "--context": tmp_path / "none.wav"}, written)


@pytest.mark.parametrize("path", ["gs://b/run", "s3://b/run", "gs:/b/run"])
def test_every_path_flag_refuses_an_address(path):
  parser = build_parser("")
  parser.add_argument("recording", type=Path, nargs="?")
  parser.add_argument("--out", type=Path)
  parser.add_argument("--root")
  parser.add_argument("--codec", nargs="+")
  parser.add_argument("--licence")
  for words in (["--out", path], ["--root", path], ["--codec", "a", path]):
    with pytest.raises(
      UserError, match=f"{words[0]} must be a path of this machine; got ..://b/run"
    ):
      parser.parse_args(words)
  with pytest.raises(UserError, match="recording must be a path of this machine"):
    parser.parse_args([path])
  with pytest.raises(UserError, match="--out must be a path of this machine"):
    parser.parse_args(["--out", "https://a/b"])
  kept = parser.parse_args(["--licence", "https://a/b", "--root", "hf://a/b", "--out", "a:b"])
  assert (kept.licence, kept.root, kept.out) == ("https://a/b", "hf://a/b", Path("a:b"))


def test_paths_that_libraries_cannot_take_are_refused(tmp_path):
  odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve"))
  with pytest.raises(UserError, match="--workdir must have a path whose letters are UTF-8"):
    refuse_patterns(odd, "--workdir")
  (tmp_path / "a[1]").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "a[1]")
  with pytest.raises(UserError, match=r"--workdir must have no \[ or \] in its path"):
    refuse_patterns(tmp_path / "link", "--workdir")
  refuse_patterns(tmp_path / "plain", "--workdir")


def test_what_is_sealed_is_known_to_be_as_it_was():
  content = {"a": (1, 2), "b": {"c": float("-inf")}}
  written = json.loads(json.dumps(seal(content)))
  assert is_sealed(written)
  assert not is_sealed({**written, "a": [1, 3]})
  assert is_sealed({"a": 1})  # older ones have none


def test_what_an_earlier_start_noted_may_be_damaged(tmp_path):
  claim_folder(tmp_path, "plan.json", {"a": 1}, "sweep")
  (tmp_path / "rows").touch()
  for broken in ("", '{"a": 1', "\xff"):
    (tmp_path / "plan.json").write_text(broken, encoding="latin-1")
    with pytest.raises(
      UserError, match=r"plan.json must be as this program wrote it; got .*Remove"
    ):
      claim_folder(tmp_path, "plan.json", {"a": 1}, "sweep")
  (tmp_path / "plan.json").write_text("[]")
  with pytest.raises(UserError, match="--out must be a new folder or hold the same sweep"):
    claim_folder(tmp_path, "plan.json", {"a": 1}, "sweep")


def test_text_of_any_bytes_is_written(tmp_path):
  write_text(tmp_path / "a.html", "na\udcefve \ud800 é")
  assert (tmp_path / "a.html").read_text("utf-8") == "na\\xed\\xb3\\xafve \\xed\\xa0\\x80 é"
  write_text(tmp_path / "a.html", "na\udcefve")
  assert (tmp_path / "a.html").read_text("utf-8") == "na\\xefve"
