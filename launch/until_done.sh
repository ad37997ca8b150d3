#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a training command, and ends with code 143 if SIGTERM has stopped it before its last step.
#
#   launch/until_done.sh python -m stemgen_jax.train ...
#
# Training that is told to stop saves and ends with code 0, which a scheduler would take for the end
# of the work. Code 143 makes it start the command again; other codes are passed on. It stands alone.
set -euo pipefail
if [[ "${1:-}" == --help ]]; then
  sed -n '3,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 0
fi
if (($# == 0)); then
  echo "error: a command must be given; got none. Try launch/until_done.sh python -m ..." >&2
  exit 2
fi
asked='' child=''
trap 'asked=1; [[ -z "$child" ]] || kill -TERM "$child" 2> /dev/null || true' TERM INT
"$@" &
child=$!
[[ -z "$asked" ]] || kill -TERM "$child" 2> /dev/null || true
code=0
wait "$child" || code=$?
while kill -0 "$child" 2> /dev/null; do # the signal has interrupted the wait
  code=0
  wait "$child" || code=$?
done
if [[ -n "$asked" ]] && ((code == 0)); then code=143; fi
exit "$code"
