# SPDX-License-Identifier: Apache-2.0
"""Rhythms of the pitched parts, one bar each, as strings of sixteenths.

`-` holds, `.` rests, anything else strikes. `_4` and `_3` tables are for bars of 4 and 3 beats;
the first line of each holds its notes, and a song's last bar is played so.
"""

# Bass: R the chorale's bass, 3 and 5 other chord tones, 8 the octave, a leads to the next bar.
BASS_4 = (
  "R---------------",
  "R-R-R-R-R-R-R-R-",
  "R.8.R.8.R.8.R.8.",
  "R-----R-5---R-a-",
  "R--R--5-R--R--5-",
  "R---5---R---5-a-",
  "R---3---5---a---",
  "R..RR..8R..R5.a.",
  "R-R.....R-R.5.a.",
  "..R...R...R...R.",
)
BASS_3 = (
  "R-----------",
  "R-----5-----",
  "R---5---a---",
  "R-R-R-R-R-R-",
  "R---3---5---",
  "R-----R-5-a-",
)
# Keys and guitar: X, x the whole chord; a digit one of its notes, beyond the last an octave up.
COMP_4 = (
  "X---------------",
  "X---x---X---x---",
  "..X...X...X...X.",
  "X--x--X---x-X---",
  "X..x..X...x.x...",
  "0-1-2-1-0-1-2-1-",
  "0-2-1-2-0-2-1-2-",
  "012321230123212.",
  "0-1-2-3-4-3-2-1-",
  "X.......X.x.....",
  "X-----x-----x---",
  "0..1..2.0..1..2.",
)
COMP_3 = (
  "X-----------",
  "0---x---x---",
  "0-1-2-3-2-1-",
  "0-2-1-2-1-2-",
  "X---x---x-x-",
  "012321012321",
  "X-----x-----",
)
STRUM_4 = (
  "X---------------",
  "X---x-x-..x-x-x-",
  "X---X-x-X---X-x-",
  "X-x-X-x-X-x-X-x-",
  "....X.......X...",
  "..X...X...X...X.",
  "x.xxX.x.x.xxX.x.",
  "0-2-1-3-0-2-1-3-",
  "0-1-2-3-4-3-2-1-",
  "0.1.2.3.0.2.3.1.",
  "X--X--X-X--X--X-",
)
STRUM_3 = (
  "X-----------",
  "X---x-x-x-x-",
  "....X---X---",
  "0-1-2-3-2-1-",
  "0-2-3-4-3-2-",
  "X-x-x-X-x-x-",
)
CHUG_4 = (
  "X---------------",
  "X-x-x-x-X-x-x-x-",
  "X.xxX.xxX.xxX.xx",
  "X--X--X---X-X---",
  "X-------X---X-x-",
)
CHUG_3 = ("X-----------", "X-x-x-x-x-x-", "X--X--X--X--", "X-------X---")
