# SPDX-License-Identifier: Apache-2.0
"""A session is its folder: what is saved, undone, reopened, and what is refused."""

import dataclasses
import errno
import json

import pytest

from stemgen_jax.errors import UserError
from stemgen_jax.looper import session as module
from stemgen_jax.looper.document import Take
from stemgen_jax.looper.session import FILE, Session, new_folder


@pytest.fixture
def session(tmp_path):
  """A new session with a take in its first lane."""
  session = Session(tmp_path / "mine")
  add(session, "t5")
  yield session
  session.close()


def add(session, name):
  session.path_of(name).write_bytes(b"sound")
  lane = session.document.lanes[0]
  lane = dataclasses.replace(lane, takes=(*lane.takes, name), active=name)
  words = ("--context", "contexts/a.wav")
  session.commit(session.document.put(lane), Take(name, "A", "generated", 3, 1.5, words))


def test_a_session_reopens_as_it_was(session):
  add(session, "t6")
  session.undo()
  before = session.document, session.takes, session.revision, session.name("t")
  session.close()
  again = Session(session.folder)
  assert (again.document, again.takes) == before[:2]
  assert again.revision > before[2]
  assert again.redo()
  assert again.document.lanes[0].active == "t6"
  assert again.takes["t6"].words == ("--context", "contexts/a.wav")
  again.close()


def test_everything_is_undone_and_done_again(session):
  empty, first = [], session.document
  add(session, "t6")
  second = session.document
  while session.undo():
    empty.append(session.document)
  assert empty[0] == first
  assert empty[-1].is_empty
  assert not session.can_undo
  assert session.redo()
  assert session.redo()
  assert session.document == second
  assert not session.redo()
  session.undo()
  add(session, "t7")  # what was undone is forgotten
  assert not session.can_redo
  assert "t6" not in session.takes
  assert session.path_of("t6").is_file()  # but not its sound


def test_steps_are_bounded(session, monkeypatch):
  monkeypatch.setattr(module, "MOST_STEPS", 3)
  for number in range(10, 20):
    add(session, f"t{number}")
  steps = 0
  while session.undo():
    steps += 1
  assert steps == 3


def test_a_change_that_cannot_be_saved_is_not_made(session, monkeypatch):
  before = session.document, session.takes, (session.folder / FILE).read_bytes()

  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(module, "write_text", fail)
  with pytest.raises(OSError, match="No space"):
    add(session, "t6")
  assert (session.document, session.takes, (session.folder / FILE).read_bytes()) == before
  with pytest.raises(OSError, match="No space"):
    session.undo()
  assert session.document == before[0]


def test_one_process_at_a_time(session):
  with pytest.raises(UserError, match="another has open"):
    Session(session.folder)


def test_folders_that_are_no_session_are_refused(tmp_path):
  (tmp_path / "letter.txt").write_text("dear")
  with pytest.raises(UserError, match="holds other"):
    Session(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] in (["letter.txt"], [".lock", "letter.txt"])


@pytest.mark.parametrize(
  "damage",
  [
    lambda r: "{",
    lambda r: "[]",
    lambda r: json.dumps({**r, "format": 99}),
    lambda r: json.dumps({**r, "position": 7}),
    lambda r: json.dumps(r).replace("t5", "../t5"),
    lambda r: json.dumps({**r, "takes": [{**r["takes"][0], "source": "../../etc/passwd"}]}),
    lambda r: json.dumps({**r, "takes": [{**r["takes"][0], "id": 3}]}),
    lambda r: json.dumps({**r, "documents": [{"song": {}, "lanes": [{}]}]}),
  ],
)
def test_a_damaged_session_is_one_line_and_stays_as_it_is(session, damage):
  path = session.folder / FILE
  session.close()
  path.write_text(damage(json.loads(path.read_text())))
  before = path.read_bytes()
  with pytest.raises(UserError, match=r"session\.json must be a session"):
    Session(session.folder)
  assert path.read_bytes() == before


def test_what_a_missing_sound_leaves_is_opened(session):
  session.close()
  rest = {take for take in session.takes if take != "t5"}
  session.path_of("t5").unlink()
  again = Session(session.folder)
  assert again.lost == ["t5"]
  assert set(again.takes) == rest
  for lane in again.document.lanes:
    assert "t5" not in (*lane.takes, lane.active)
  again.close()


def test_new_sessions_get_folders_of_their_own(tmp_path):
  first, second = new_folder(tmp_path / "looper"), new_folder(tmp_path / "looper")
  assert first != second
  assert all(folder.is_dir() for folder in (first, second))
