# SPDX-License-Identifier: Apache-2.0
"""What counts as silence, for each question that is asked of a sound."""

STEM_LUFS = -50.0  # a written stem, as loud as the codec gives it, plays nothing
SOUND_DB = -60.0  # a sound of this RMS of full scale, or less, has neither notes nor loudness
AUDIBLE = 10 ** (SOUND_DB / 20)  # the same as an amplitude
CORPUS_DB = -80.0  # a stem of a corpus that is below this RMS throughout says nothing
