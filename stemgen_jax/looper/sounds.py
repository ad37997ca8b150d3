# SPDX-License-Identifier: Apache-2.0
"""The sounds of a session: read, cut from what was sent, and cut anew where the loop changes.

All of it takes its time, and is called in threads; none of it changes what the session is.
"""

import dataclasses
import functools
import hashlib
import math
import shutil
from pathlib import Path

from stemgen_jax.audio.files import Samples, measure_audio, read_audio, write_audio
from stemgen_jax.audio.loudness import amplify, measure_lufs
from stemgen_jax.errors import UserError
from stemgen_jax.looper import mixing
from stemgen_jax.looper.document import LOOP_S, RATE_HZ, Document, Lane, Song, Take
from stemgen_jax.looper.session import CONTEXTS, SOURCES, TAKES, WORK, Session, saving
from stemgen_jax.looper.song import choose_subtype, read_part, refit

KEPT_SOUNDS = 8  # in memory
WRITTEN_LUFS = -17.0  # of a sum of takes that a new one hears, at least


class Sounds:
  """What lies in a session's folder."""

  def __init__(self, session: Session):
    self.session = session
    self.read = functools.lru_cache(maxsize=KEPT_SOUNDS)(self._read)

  def _read(self, take: str) -> Samples:
    return read_audio(self.session.path_of(take))[0]

  def cut(self, take: Take, name: str, song: Song) -> None:
    """Writes a take's loop, cut from its source."""
    source = self._source_of(take)
    samples = read_part(source, take.start_s, song, name)
    with saving("The loop"):
      write_audio(self.session.path_of(take.id), samples, RATE_HZ, choose_subtype(source))

  def _source_of(self, take: Take) -> Path:
    return self.session.folder / SOURCES / str(take.source)

  def recut(self, before: Document, after: Document) -> tuple[Document, list[Take]]:
    """Returns a document whose takes have the length of its song, and the takes that are new.

    Raises:
      UserError: if one cannot be read or written, or no file lasts until its new start; then none
        of the new ones stays.
    """
    length = after.song.loop_samples
    made: list[Take] = []
    shift_s = after.song.offset_s - before.song.offset_s
    if length == before.song.loop_samples and not shift_s:
      return after, []
    if shift_s:
      self._check_start(after)
    try:
      for lane in after.lanes:
        names = {}
        for name in lane.takes:
          take = self.session.takes[name]
          new = self.recut_take(take, after.song, shift_s)
          names[name] = new.id
          made += [] if new is take else [new]
        active = names.get(lane.active or "")
        lane = dataclasses.replace(lane, takes=tuple(names.values()), active=active)
        after = after.put(lane)
    except BaseException:
      self.session.remove(made)
      raise
    return after, made

  def _check_start(self, after: Document) -> None:
    """Raises a UserError where the loop would begin when all files are over."""
    takes = [self.session.takes[name] for lane in after.lanes for name in lane.takes]
    ends_s = [measure_audio(self._source_of(take))[0] for take in takes if take.origin == "file"]
    latest_s = max(ends_s, default=math.inf) - LOOP_S[0]
    if after.song.offset_s > max(0.0, latest_s):
      raise UserError(
        f"The loop must start at {max(0.0, latest_s):.2f} s or before, as its file ends at"
        f" {max(ends_s):.2f} s; got {after.song.offset_s:.2f} s."
      )

  def recut_take(self, take: Take, song: Song, shift_s: float) -> Take:
    """Returns a take as long as the loop of a song.

    A file's begins later by `shift_s` than it did, unless the file is over then.
    """
    length, start_s = song.loop_samples, take.start_s
    if take.origin == "file" and shift_s:
      moved_s = max(0.0, start_s + shift_s)
      start_s = moved_s if measure_audio(self._source_of(take))[0] > moved_s else start_s
    if self.read(take.id).shape[1] == length and start_s == take.start_s:
      return take
    own = self.session.name("t")
    if take.source:
      new = dataclasses.replace(take, id=own, start_s=start_s)
      self.cut(new, "the file", song)
    else:
      new = dataclasses.replace(take, id=own, parent=take.parent or take.id)
      whole = self.read(take.parent or take.id)
      with saving("The loop"):
        write_audio(self.session.path_of(own), refit(whole, length), RATE_HZ)
    return new

  def write_context(self, lanes: list[Lane], length: int) -> str:
    """Writes the sum of lanes as they sound; returns its path inside the session.

    A take is softer than what it hears. If that were takes alone, each would be softer than the one
    before: such a sum is brought to WRITTEN_LUFS where it has less. What earlier jobs left behind,
    those that were cancelled, is removed.
    """
    for left in (self.session.folder / WORK).glob("job*"):
      shutil.rmtree(left, ignore_errors=True)
    heard = mixing.mix(lanes, self.read, length)
    if not any(self.session.takes[str(lane.active)].source for lane in lanes):
      gain_db = WRITTEN_LUFS - measure_lufs(heard, RATE_HZ)
      heard = amplify(heard, gain_db) if 0 < gain_db < math.inf else heard
    name = f"{CONTEXTS}/{hashlib.sha256(heard.tobytes()).hexdigest()[:16]}.wav"
    path = self.session.folder / name
    if not path.is_file():
      with saving("What the take is to hear"):
        write_audio(path, heard, RATE_HZ)
    return name

  def take_in(self, work: Path, name: str) -> None:
    """Makes what was written for a job, in a folder of its own, the sound of a take."""
    (work / "settings.json").replace(self.session.folder / TAKES / f"{name}.json")
    (work / "take_00.wav").replace(self.session.path_of(name))
    shutil.rmtree(work, ignore_errors=True)
