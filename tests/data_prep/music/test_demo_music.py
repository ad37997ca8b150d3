# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import itertools
import json
import struct
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import demo
from data_prep.music import doom, figures, grooves, rhythms
from data_prep.music.arrange import ROLES, arrange
from data_prep.music.chorales import Chord, chorale_paths, read_chorale
from data_prep.music.midi_files import Score, find_scores, notes_digest, read_song
from data_prep.music.parts import Part, Song, inst_class, note_events
from data_prep.music.render import default_soundfont, render_song
from data_prep.music.slakh_layout import write_track
from data_prep.music.splits import assign_splits
from stemgen_jax.audio.loudness import measure_lufs
from stemgen_jax.errors import UserError

RATE_HZ = 16_000
C_MAJOR, G_SEVENTH = Chord((0, 4, 7), 0), Chord((7, 11, 2, 5), 7)


def same_tune(a, b):
  """Returns True if two openings differ by at most two inserted, dropped or changed intervals.

  Over the 399 chorales of music21 10.5 this makes 177 tunes of at most 13 settings.
  """
  row = list(range(len(b.tune) + 1))
  for i, x in enumerate(a.tune, 1):
    before, row = row, [i]
    for j, y in enumerate(b.tune, 1):
      row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (x != y)))
  return row[-1] <= 2


def load(name):
  return read_chorale(next(path for path in chorale_paths() if path.stem == name))


@pytest.fixture(scope="module")
def chorale():
  return load("bwv269")


def sheet(*chords, bar_beats=4):
  voices = (((0.0, 4.0, 72),),) * 4
  return figures.Sheet(
    bar_beats=bar_beats, chords=chords, voices=voices, scale=frozenset({0, 2, 4, 5, 7, 9, 11})
  )


def midi_bytes(*messages, ticks=480):
  file = mido.MidiFile(ticks_per_beat=ticks, tracks=[mido.MidiTrack(messages)])
  stream = io.BytesIO()
  file.save(file=stream)
  return stream.getvalue()


def note(channel, key, velocity=80, start=0, length=480):
  return (
    mido.Message("note_on", channel=channel, note=key, velocity=velocity, time=start),
    mido.Message("note_off", channel=channel, note=key, time=length),
  )


def mus(body):
  return b"MUS\x1a" + struct.pack("<6H", len(body), 16, 1, 0, 0, 0) + bytes(body)


def wad(*lumps):
  content, directory = b"", b""
  for name, lump in lumps:
    directory += struct.pack("<II8s", 12 + len(content), len(lump), name)
    content += lump
  return b"PWAD" + struct.pack("<II", len(lumps), 12 + len(content)) + content + directory


class TestChorale:
  def test_reads_metre_upbeat_voices_and_harmony(self, chorale):
    assert chorale.bar_beats == 3
    # One beat of upbeat: the tune starts on the last beat of bar 0, in G major.
    assert chorale.voices[0][:3] == ((2.0, 1.0, 67), (3.0, 2.0, 67), (5.0, 1.0, 74))
    assert chorale.chords[3] == Chord((7, 11, 2), 7)
    assert chorale.chords[4] == Chord((4, 7, 11), 4)
    assert chorale.beats % 3 == 0
    assert chorale.phrase_ends[0] == 14.0
    assert chorale.phrase_ends[-1] == chorale.beats

  def test_joins_tied_notes(self):
    tune = {beat: (length, pitch) for beat, length, pitch in load("bwv121.6").voices[0]}
    assert tune[7.0] == (2.0, 71)
    assert 8.0 not in tune

  def test_bars_of_rest_before_the_first_note_are_dropped(self):
    late = load("bwv248.64-6")  # the choir waits 51 beats for the trumpets
    assert min(voice[0][0] for voice in late.voices) < late.bar_beats
    assert late.phrase_ends[-1] == late.beats

  def test_skips_files_that_are_not_four_voices(self):
    assert load("bwv846") is None

  def test_settings_of_one_tune_are_known_as_such(self, chorale):
    assert same_tune(load("bwv417"), load("bwv418"))
    assert same_tune(load("bwv417"), load("bwv419"))  # which opens with another interval
    assert not same_tune(chorale, load("bwv417"))


class TestFigures:
  def test_voicings_hold_only_chord_tones_and_move_little(self):
    chords = (C_MAJOR, G_SEVENTH, Chord((9, 0, 4), 9), C_MAJOR)
    voicings = figures.lead_voices(chords, 53, 78, 4)
    for chord, voicing in zip(chords, voicings, strict=True):
      assert {pitch % 12 for pitch in voicing} <= set(chord.tones)
      assert 53 <= voicing[0] <= voicing[-1] <= 78
    for before, after in itertools.pairwise(voicings):
      assert np.abs(np.subtract(before, after)).max() <= 5

  def test_bass_plays_the_chorales_bass_and_strikes_again_at_a_new_chord(self):
    page = sheet(C_MAJOR, C_MAJOR, G_SEVENTH, G_SEVENTH)
    notes = figures.bass_figure("R---------------")(page, 0, np.random.default_rng(0))
    assert [(n.beat, n.pitch % 12) for n in notes] == [(0.0, 0), (2.0, 7)]
    assert all(28 <= n.pitch < 40 for n in notes)

  def test_comp_plays_whole_chords_and_single_notes(self):
    page = sheet(*[C_MAJOR] * 4)
    play = figures.comp_figure("X---0.1.3---....", [(60, 64, 67)] * 4)
    notes = play(page, 0, np.random.default_rng(0))
    assert [n.pitch for n in notes] == [60, 64, 67, 60, 64, 72]
    assert [n.beat for n in notes] == [0, 0, 0, 1, 1.5, 2]

  @pytest.mark.parametrize("beats", [3, 4])
  def test_rhythms_fill_their_bar_and_the_first_of_each_table_holds(self, beats):
    for table in ("BASS", "COMP", "STRUM", "CHUG"):
      lines = getattr(rhythms, f"{table}_{beats}")
      assert {len(line) for line in lines} == {4 * beats}
      assert lines[0][1:] == "-" * (4 * beats - 1)

  @pytest.mark.parametrize("beats", [3, 4])
  def test_grooves_fill_their_bar_and_fills_leave_the_first_beat(self, beats):
    table = {3: grooves.GROOVES_3, 4: grooves.GROOVES_4}[beats]
    assert {len(line) for groove in table for line in groove.values()} == {4 * beats}
    rng = np.random.default_rng(0)
    for _ in range(40):
      notes = grooves.play_fill(grooves.draw_fill(beats, rng), end=2 * beats)
      assert beats + 1 <= min(n.beat for n in notes)
      assert max(n.beat for n in notes) < 2 * beats


class TestArrange:
  @pytest.mark.parametrize("seed", range(4))
  def test_every_part_plays_in_its_own_class_for_half_a_minute_to_a_minute(self, chorale, seed):
    song = arrange(chorale, np.random.default_rng(seed), 60.0)
    classes = [inst_class(part.program, part.is_drum) for part in song.parts]
    assert classes == ["Drums", "Bass", "Piano", "Guitar", "Synth Lead", "Synth Pad"]
    assert len(song.parts) == len(ROLES)
    assert all(part.has_notes for part in song.parts)
    assert 30 <= song.length_s <= 60
    last_s = max(time_s for part in song.parts for time_s, _ in part.events)
    assert last_s <= song.length_s

  @pytest.mark.parametrize("name", ["bwv286", "bwv36.8-2"])
  def test_shortest_chorales_are_played_again_until_long_enough(self, name):
    short = load(name)
    for seed in range(8):
      song = arrange(short, np.random.default_rng(seed), 60.0)
      assert all(part.has_notes for part in song.parts)
      assert 30 <= song.length_s <= 60

  def test_notes_lie_on_the_beat_of_one_tempo(self, chorale):
    song = arrange(chorale, np.random.default_rng(0), 60.0)
    kicks = [t for t, m in song.parts[0].events if m.type == "note_on" and m.note == grooves.KICK]
    sixteenths = np.array(kicks) * song.tempo_bpm / 60 * 4
    # Swing moves at most the odd sixteenths; players err by milliseconds.
    away = np.abs(sixteenths / 2 - np.round(sixteenths / 2))
    assert np.median(away) < 0.1

  def test_parts_share_the_chorales_harmony(self, chorale):
    """In one key, and the same for every part, most notes are tones of the chord of their beat."""
    song = arrange(chorale, np.random.default_rng(1), 60.0)
    keys = set()
    for part in song.parts[1:]:
      notes = [
        (chorale.chords[int(t * song.tempo_bpm / 60 + 0.12) % chorale.beats].tones, m.note)
        for t, m in part.events
        if m.type == "note_on"
      ]
      share = [np.mean([(n - key) % 12 in tones for tones, n in notes]) for key in range(12)]
      keys.add(int(np.argmax(share)))
      assert max(share) > 0.75
    assert len(keys) == 1

  def test_same_seed_same_song(self, chorale):
    songs = [arrange(chorale, np.random.default_rng(seed), 60.0) for seed in (5, 5, 6)]
    assert songs[0] == songs[1]
    assert songs[0] != songs[2]

  def test_limit_is_kept_and_every_part_still_plays(self, chorale):
    for seed in range(12):
      song = arrange(chorale, np.random.default_rng(seed), 15.0)
      assert song.length_s <= 15.0
      assert all(part.has_notes for part in song.parts)

  def test_a_note_struck_again_ends_first(self):
    events = note_events([(0.0, 2.0, 60, 80), (1.0, 3.0, 60, 80)], channel=0)
    kinds = [(time_s, m.type) for time_s, m in events]
    assert kinds == [(0.0, "note_on"), (1.0, "note_off"), (1.0, "note_on"), (3.0, "note_off")]


class TestMidi:
  def test_one_part_a_program_with_each_note_ended_in_its_own(self):
    content = midi_bytes(
      mido.MetaMessage("set_tempo", tempo=250_000),
      mido.Message("program_change", channel=2, program=33, time=960),
      mido.Message("control_change", channel=2, control=7, value=90),
      mido.Message("note_on", channel=2, note=40, velocity=70),
      mido.Message("program_change", channel=2, program=81, time=480),
      mido.Message("note_off", channel=2, note=40, time=480),
      *note(2, 72),
      *note(9, 36),
    )
    song = read_song(Score("x.mid", content), 60.0)
    assert [(part.program, part.is_drum) for part in song.parts] == [
      (33, False),
      (81, False),
      (0, True),
    ]
    bass, lead, _ = song.parts
    # 240 beats a minute; the silence before the first note is cut.
    notes = [(t, m.type) for t, m in bass.events if m.type.startswith("note")]
    assert notes == [(0.0, "note_on"), (0.5, "note_off")]
    assert song.tempo_bpm == 240
    volumes = [m.value for _, m in lead.events if m.type == "control_change"]
    assert volumes == [90]

  def test_long_song_is_cut_with_every_note_ended(self):
    content = midi_bytes(*note(0, 60, length=480 * 400))
    song = read_song(Score("long.mid", content), 20.0)
    assert song.length_s == pytest.approx(20.0)
    assert [m.type for _, m in song.parts[0].events][-1] == "note_off"

  def test_nonsense_key_signature_is_passed_over(self):
    content = midi_bytes(mido.MetaMessage("key_signature", key="C"), *note(0, 60))
    broken = content.replace(b"\xff\x59\x02\x00\x00", b"\xff\x59\x02\xff\xff")
    assert broken != content
    assert isinstance(read_song(Score("x.mid", broken), 60.0), Song)

  def test_equal_music_has_equal_digest_whatever_else_the_file_says(self):
    named = midi_bytes(mido.MetaMessage("text", text="copy"), *note(0, 60))
    songs = [
      read_song(Score("x", content), 60.0)
      for content in (named, midi_bytes(*note(0, 60)), midi_bytes(*note(0, 61)))
    ]
    digests = [notes_digest(song) for song in songs]
    assert digests[0] == digests[1] != digests[2]

  @settings(max_examples=150, deadline=None)
  @given(data=st.data())
  def test_broken_bytes_give_a_song_or_a_clear_error(self, data):
    content = bytearray(
      midi_bytes(
        mido.MetaMessage("track_name", name="a"),
        mido.MetaMessage("set_tempo", tempo=500_000),
        mido.Message("program_change", program=3),
        mido.Message("sysex", data=(1, 2, 3)),
        *note(0, 60),
        *note(9, 36),
      )
    )
    for _ in range(data.draw(st.integers(1, 4))):
      content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(4, len(content)))])
    assert isinstance(read_song(Score("broken.mid", content), 60.0), (Song, UserError))


class TestDoom:
  SCORE = mus(
    [0x40, 0, 30, 0x90, 0x80 | 40, 100, 70, 0x10, 43, 0x9F, 36, 0x81, 0x0C, 0x80, 40, 2, 0x60]
  )

  def test_mus_events_and_delays(self):
    events = doom.read_mus(self.SCORE)
    seen = [(round(t * 140), m.type, m.channel) for t, m in events]
    assert seen == [
      (0, "program_change", 0),
      (0, "note_on", 0),
      (70, "note_on", 0),  # after a delay of 70 ticks, at the volume given before
      (70, "note_on", 9),  # MUS channel 15 is MIDI's drum channel
      (70 + 140, "note_off", 0),  # two-byte delay: 1 * 128 + 12
    ]
    assert [m.velocity for _, m in events if m.type == "note_on"] == [100, 100, 127]

  def test_mus_controls(self):
    body = [0x49, 3, 99, 0x29, 192, 0x39, 11, 0x50, 0x60]
    messages = [m for _, m in doom.read_mus(mus(body))]
    assert [(m.type, m.channel) for m in messages] == [
      ("control_change", 10),
      ("pitchwheel", 10),
      ("control_change", 10),
    ]
    assert (messages[0].control, messages[0].value, messages[1].pitch) == (7, 99, 4096)
    assert messages[2].control == 123

  @given(st.binary(max_size=60))
  def test_random_mus_is_events_or_a_value_error(self, body):
    try:
      times = [time_s for time_s, _ in doom.read_mus(mus(body))]
    except ValueError:
      return
    assert times == sorted(times)

  @given(st.integers(0, 80))
  def test_cut_wad_is_a_value_error(self, size):
    whole = wad((b"D_A", self.SCORE), (b"MAP01", b""))
    if size < len(whole):
      with pytest.raises(ValueError, match=r"header|passes the end"):
        doom.music_lumps(whole[:size])

  def test_lump_past_the_end_is_a_value_error(self):
    whole = wad((b"D_A", self.SCORE))
    with pytest.raises(ValueError, match="lump D_A passes the end"):
      doom.music_lumps(whole[:-12] + struct.pack("<I8s", 999, b"D_A"))

  def test_music_of_two_wads_is_taken_once(self, tmp_path):
    tune = midi_bytes(*note(0, 60))
    (tmp_path / "a.wad").write_bytes(wad((b"D_A", self.SCORE), (b"D_B", tune), (b"THINGS", b"xy")))
    (tmp_path / "b.WAD").write_bytes(wad((b"D_OTHER", tune)))
    scores = find_scores([tmp_path])
    assert [score.source for score in scores] == ["a.wad:D_A", "a.wad:D_B"]

  def test_bad_files_are_named_or_left_out(self, tmp_path, capsys):
    bad, cut = tmp_path / "bad.mid", tmp_path / "cut.wad"
    bad.write_bytes(b"not music")
    cut.write_bytes(wad((b"D_A", self.SCORE))[:-4])
    for path, message in (
      (bad, "none of them"),
      (cut, "must be whole"),
      (tmp_path / "no", "exist"),
    ):
      with pytest.raises(UserError, match=message) as raised:
        find_scores([path])
      assert str(path) in str(raised.value)
    with pytest.raises(UserError, match="found none"):
      find_scores([tmp_path])
    (tmp_path / "good.mid").write_bytes(midi_bytes(*note(0, 60)))
    assert [score.source for score in find_scores([tmp_path])] == ["good.mid"]
    assert str(bad) in capsys.readouterr().err


class TestRender:
  def test_silent_part_is_listed_and_not_rendered(self, tmp_path):
    playing = Part(
      program=0, is_drum=False, events=tuple(note_events([(0.0, 1.0, 60, 90)], 0)), level_db=-20.0
    )
    resting = Part(program=33, is_drum=False, events=())
    song = Song(source="x", tempo_bpm=120.0, length_s=2.0, parts=(playing, resting))
    folder = tmp_path / "train" / "Track00001"
    write_track(song, folder, default_soundfont(), RATE_HZ)
    stems = yaml.safe_load((folder / "metadata.yaml").read_text())["stems"]
    assert [stem["audio_rendered"] for stem in stems.values()] == [True, False]
    assert [path.name for path in (folder / "stems").iterdir()] == ["S00.flac"]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]

  def test_parts_get_the_loudness_asked_for(self):
    parts = [
      Part(program=p, is_drum=False, events=tuple(note_events([(0, 3, 50, 90)], 0)), level_db=level)
      for p, level in ((0, -30.0), (89, -20.0))
    ]
    song = Song(source="x", tempo_bpm=120.0, length_s=4.0, parts=tuple(parts))
    audio = render_song(song, default_soundfont().read_bytes(), RATE_HZ)
    measured = [measure_lufs(stem[None] / 32768, RATE_HZ) for stem in audio.stems]
    assert measured[1] - measured[0] == pytest.approx(10.0, abs=0.1)
    assert measured == pytest.approx(audio.lufs, abs=0.1)
    assert np.abs(audio.mix).max() <= 0.951 * 32767


class TestSplits:
  @given(st.lists(st.integers(1, 6), min_size=1, max_size=60))
  def test_groups_stay_whole_and_no_split_is_empty(self, sizes):
    ends = np.cumsum([0, *sizes])
    groups = [list(range(a, b)) for a, b in itertools.pairwise(ends.tolist())]
    splits = assign_splits(groups)
    assert all(len({splits[i] for i in group}) == 1 for group in groups)
    assert set(splits) == ({"train", "validation", "test"} if len(sizes) > 2 else {"train"})
    if len(sizes) >= 10:
      held_out = sum(split != "train" for split in splits)
      assert 0.5 <= held_out / (0.2 * len(splits)) <= 2.5

  @pytest.mark.slow
  def test_no_tune_is_in_two_splits(self):
    held_out = yaml.safe_load((Path(demo.__file__).parent / "chorale_splits.yaml").read_text())
    split_of = {name: split for split, names in held_out.items() for name in names}
    chorales = [c for c in map(read_chorale, chorale_paths()) if c is not None]
    splits = [split_of.get(chorale.name, "train") for chorale in chorales]
    assert [splits.count(s) for s in ("train", "validation", "test")] == [319, 40, 40]
    for (a, split_a), (b, split_b) in itertools.combinations(zip(chorales, splits, strict=True), 2):
      assert split_a == split_b or not same_tune(a, b)

  def test_what_is_held_out_does_not_depend_on_the_number_of_songs(self):
    few, few_splits = demo.plan_chorales(20, 0, map)
    many, many_splits = demo.plan_chorales(31, 5, map)
    assert [few_splits.count(s) for s in ("train", "validation", "test")] == [16, 2, 2]
    assert [many_splits.count(s) for s in ("train", "validation", "test")] == [25, 3, 3]
    trained = {c.name for c, split in zip(few, few_splits, strict=True) if split == "train"}
    assert not trained & {
      c.name for c, split in zip(many, many_splits, strict=True) if split != "train"
    }

  def test_more_songs_than_chorales_come_again_in_their_split(self, monkeypatch):
    held_out = yaml.safe_load((Path(demo.__file__).parent / "chorale_splits.yaml").read_text())
    names = {*held_out["test"][:2], *held_out["validation"][:2]}
    paths = [p for p in chorale_paths() if p.stem in names] + chorale_paths()[:8]
    monkeypatch.setattr(demo, "chorale_paths", lambda: sorted(set(paths)))
    chosen, splits = demo.plan_chorales(30, 0, map)
    assert len(chosen) == len(splits) == 30
    by_chorale = {}
    for music, split in zip(chosen, splits, strict=True):
      by_chorale.setdefault(music.name, set()).add(split)
    assert all(len(found) == 1 for found in by_chorale.values())
    assert set(splits) == {"train", "validation", "test"}


class TestCommand:
  FLAGS = ("--songs", "3", "--seconds", "12", "--rate", str(RATE_HZ))

  def run(self, out, *flags):
    assert demo.main(["--out", str(out), *self.FLAGS, *flags]) == 0
    return {
      str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
      for path in sorted(out.rglob("*"))
      if path.is_file()
    }

  def test_layout_sum_resume_and_same_bytes(self, tmp_path):
    out = tmp_path / "music"
    first = self.run(out, "--jobs", "1")
    tracks = sorted(out.glob("*/Track*"))
    assert sorted(track.parent.name for track in tracks) == ["test", "train", "validation"]
    for track in tracks:
      metadata = yaml.safe_load((track / "metadata.yaml").read_text())
      assert set(metadata) == {
        "UUID",
        "audio_dir",
        "lmd_midi_dir",
        "midi_dir",
        "normalization_factor",
        "normalized",
        "overall_gain",
        "stems",
      }
      assert set(metadata["stems"]["S00"]) == {
        "audio_rendered",
        "inst_class",
        "integrated_loudness",
        "is_drum",
        "midi_program_name",
        "midi_saved",
        "plugin_name",
        "program_num",
      }
      assert metadata["stems"]["S00"]["program_num"] == 128
      mix, rate_hz = soundfile.read(track / "mix.flac", dtype="int16")
      assert rate_hz == RATE_HZ
      stems = [soundfile.read(p, dtype="int16")[0] for p in (track / "stems").iterdir()]
      assert np.array_equal(np.sum(stems, axis=0, dtype=np.int32), mix)
      assert mido.MidiFile(track / "MIDI" / "S01.mid").length <= 12.5
    # A track that is gone is made again, the others are left alone.
    kept = (tracks[1] / "mix.flac").stat().st_mtime_ns
    for path in sorted(tracks[0].rglob("*"), reverse=True):
      path.rmdir() if path.is_dir() else path.unlink()
    tracks[0].rmdir()
    assert self.run(out, "--jobs", "1") == first
    assert (tracks[1] / "mix.flac").stat().st_mtime_ns == kept
    with pytest.raises(UserError, match=r"seed=1 \(there: 0\)"):
      self.run(out, "--seed", "1")
    assert self.run(tmp_path / "again", "--jobs", "2") == first
    other = self.run(tmp_path / "other", "--songs", "1", "--seed", "1", "--jobs", "1")
    assert not {v for k, v in other.items() if "stems" in k} & set(first.values())

  def test_midi_mode(self, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(4):
      content = midi_bytes(*note(0, 60 + index), *note(9, 36))
      (source / f"{index}.mid").write_bytes(content)
    (source / "empty.mid").write_bytes(midi_bytes())
    flags = ["--out", str(out), "--midi", str(source), "--rate", str(RATE_HZ), "--jobs", "1"]
    assert demo.main(flags) == 0
    assert "4 songs" in capsys.readouterr().out
    assert len(list(out.glob("*/Track*/stems/S01.flac"))) == 4
    assert json.loads((out / "demo.json").read_text())["songs"] is None

  def test_nothing_is_written_when_no_midi_can_be_read(self, tmp_path):
    (tmp_path / "x.mid").write_bytes(b"MThd rubbish")
    with pytest.raises(UserError, match=r"x\.mid"):
      demo.main(["--out", str(tmp_path / "out"), "--midi", str(tmp_path / "x.mid"), "--jobs", "1"])
    assert not (tmp_path / "out").exists()

  def test_wrong_flags_are_refused(self, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for flags, message in (
      (("--songs", "0"), "songs must be at least 1"),
      (("--seconds", "nan"), "seconds must be at least 10"),
      (("--soundfont", str(tmp_path / "note.txt")), "SoundFont 2 file"),
      (("--soundfont", str(tmp_path / "none.sf2")), "exists"),
      ((), "holds other files"),
    ):
      with pytest.raises(UserError, match=message):
        demo.main(["--out", str(tmp_path), *flags])
    assert (tmp_path / "note.txt").read_text() == "mine"

  def test_help_opens_with_an_example(self, capsys):
    with pytest.raises(SystemExit):
      demo.main(["--help"])
    opening = capsys.readouterr().out.splitlines()[0]
    assert "python -m data_prep.demo --out" in opening
