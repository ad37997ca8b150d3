# SPDX-License-Identifier: Apache-2.0
"""A batch is refused whole where a line reads what a line writes, whatever lies on the disk."""

import json

import pytest
import soundfile

from stemgen_jax import sample
from stemgen_jax.errors import UserError, run_cli
from stemgen_jax.sampling.stemgen import StemGen
from stemgen_jax.shell.lines import read_lines


@pytest.mark.parametrize("there", [False, True], ids=["first run", "second run"])
@pytest.mark.parametrize(
  ("lines", "flags", "reader", "writer"),
  [
    ([{"context": "a.wav", "name": "one"}, {"context": "out/one/take_00_mix.wav"}], [], 2, 1),
    ([{"context": "out/0003/take_07.wav"}, 5, {"context": "a.wav"}], [], 1, 3),
    ([{"context": "out/one/take_00.wav", "name": "one"}], [], 1, 1),
    ([{"context": "a.wav"}, {"context": "a.wav", "name": "one"}], ["--stem"], 1, 2),
  ],
)
def test_a_line_must_not_read_what_a_line_writes(
  tmp_path, monkeypatch, capsys, there, lines, flags, reader, writer
):
  model = StemGen.__new__(StemGen)  # of which nothing is asked
  monkeypatch.setattr(StemGen, "from_checkpoint", lambda *_: model)
  soundfile.write(tmp_path / "a.wav", [0.1] * 1000, 8000)
  for folder, file in (("one", "take_00_mix.wav"), ("0003", "take_07.wav"), ("one", "take_00.wav")):
    if there:
      (tmp_path / "out" / folder).mkdir(parents=True, exist_ok=True)
      soundfile.write(tmp_path / "out" / folder / file, [0.1] * 1000, 8000)
  batch = tmp_path / "b.jsonl"
  batch.write_text("".join(json.dumps(line) + "\n" for line in lines))
  words = ["--batch", str(batch), "--out", str(tmp_path / "out")]
  words += [word for flag in flags for word in (flag, str(tmp_path / "out/one/take_00.wav"))]
  assert run_cli(lambda: sample.main(words)) == 2
  said = capsys.readouterr().err
  assert said.startswith(
    f"error: line {reader} of {batch} must not read what line {writer} writes; got its "
  )
  assert said.count("\n") == 1


@pytest.mark.parametrize("content", ['{"takes": 1}\n'.encode("utf-16"), b"RIFF\0\0\0\0WAVE\n{}\n"])
def test_a_batch_that_is_no_text_is_one_line(tmp_path, content):
  (tmp_path / "batch.jsonl").write_bytes(content)
  with pytest.raises(UserError, match=r"--batch must be text in UTF-8; got .*batch.jsonl"):
    list(read_lines(tmp_path / "batch.jsonl", "--batch"))
