#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains in N processes on this machine that form one program, as the hosts of a pod do.
#
#   launch/local.sh N [--dry_run] --config configs/demo.py --workdir runs/demo/model ...
#
# Each process reads its own share of every batch. Process 0 speaks here, the others to files that
# are named if one fails. Ctrl-C or SIGTERM goes to all of them: they save, and end together.
# Environment: PYTHON (default python), JAX_PLATFORMS (default cpu).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
read_flags "$@"
[[ "${rest[0]:-}" =~ ^[1-9][0-9]*$ ]] ||
  fail "the number of processes must come first; got '${rest[0]:-}'. Try launch/local.sh 2 --config ..."
count=${rest[0]}
python=${PYTHON:-python}
need_tool "$python"
command=("$python" -m stemgen_jax.train --distributed "${rest[@]:1}")
if [[ -n "$dry_run" ]]; then
  for ((i = 0; i < count; i++)); do
    run env JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" STEMGEN_COORDINATOR=127.0.0.1:PORT \
      STEMGEN_PROCESSES="$count" STEMGEN_PROCESS="$i" "${command[@]}"
  done
  exit 0
fi

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
logs=$(mktemp -d)
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
export STEMGEN_COORDINATOR="127.0.0.1:$port" STEMGEN_PROCESSES="$count"
children=()
trap 'kill -TERM "${children[@]}" 2> /dev/null || true' INT TERM
for ((i = 0; i < count; i++)); do
  if ((i == 0)); then
    STEMGEN_PROCESS=$i "${command[@]}" &
  else
    STEMGEN_PROCESS=$i "${command[@]}" > "$logs/process_$i.log" 2>&1 &
  fi
  children+=($!)
done

code=0
for ((left = count; left > 0; left--)); do
  status=0
  wait -n -p ended "${children[@]}" || status=$?
  while [[ -z "${ended:-}" ]]; do # a trap has interrupted the wait
    status=0
    wait -n -p ended "${children[@]}" || status=$?
  done
  for i in "${!children[@]}"; do
    [[ "${children[i]}" == "$ended" ]] || continue
    unset "children[i]"
    if ((status != 0 && code == 0)); then
      code=$status
      echo "process $i ended with code $status; the others are stopped" >&2
      ((i == 0)) || { echo "its last lines ($logs/process_$i.log):" >&2; tail -n 5 "$logs/process_$i.log" >&2; }
      kill -TERM "${children[@]}" 2> /dev/null || true
      (sleep 30; kill -KILL "${children[@]}" 2> /dev/null || true) &
      reaper=$!
    fi
  done
  ended=''
done
[[ -z "${reaper:-}" ]] || kill "$reaper" 2> /dev/null || true
((code != 0)) || rm -r "$logs"
exit "$code"
