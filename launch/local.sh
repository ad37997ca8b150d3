#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains in N processes on this machine that form one program, as the hosts of a pod do.
#
#   launch/local.sh N [--dry_run] --config configs/demo.py --workdir runs/demo/model ...
#
# Each process reads its own share of every batch. Process 0 speaks here, the others to files that
# are named if one fails. Ctrl-C or SIGTERM goes to all of them: they save, and end together. If one
# fails, the others are stopped, and its exit code is returned.
# Environment: PYTHON (default python), JAX_PLATFORMS (default cpu), GRACE_S (default 30: seconds
# that the others have to end after one has failed).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
read_flags "$@"
[[ "${rest[0]:-}" =~ ^[1-9][0-9]*$ ]] ||
  fail "the number of processes must come first; got '${rest[0]:-}'. Try launch/local.sh 2 --config ..."
((${#rest[@]} > 1)) ||
  fail "training flags must follow the number of processes; got none. Try --config configs/demo.py ..."
count=${rest[0]} python=${PYTHON:-python} grace_s=${GRACE_S:-30}
need_count grace_s
need_tool "$python"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
command=("$python" -m stemgen_jax.train --distributed "${rest[@]:1}")
if [[ -n "$dry_run" ]]; then
  for ((i = 0; i < count; i++)); do
    run env JAX_PLATFORMS="$JAX_PLATFORMS" STEMGEN_COORDINATOR=127.0.0.1:PORT \
      STEMGEN_PROCESSES="$count" STEMGEN_PROCESS="$i" "${command[@]}"
  done
  exit 0
fi

children=() # by process number; those that have ended are taken out
asked=''
send() {
  local child
  for child in "${children[@]}"; do kill "-$1" "$child" 2> /dev/null || true; done
}
trap 'asked=1; send TERM' INT TERM HUP
trap 'send KILL' EXIT

find_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$find_port")
export STEMGEN_COORDINATOR="127.0.0.1:$port" STEMGEN_PROCESSES="$count"
logs=$(mktemp -d)
for ((i = 0; i < count; i++)); do
  if ((i == 0)); then
    STEMGEN_PROCESS=$i "${command[@]}" &
  else
    STEMGEN_PROCESS=$i "${command[@]}" > "$logs/process_$i.log" 2>&1 &
  fi
  children[i]=$!
done
[[ -z "$asked" ]] || send TERM # those that were not there yet when the signal came

code=0 deadline=''
while ((${#children[@]} > 0)); do
  sleep 0.2 || true # Ctrl-C ends it too
  for i in "${!children[@]}"; do
    ! kill -0 "${children[i]}" 2> /dev/null || continue
    status=0
    wait "${children[i]}" || status=$?
    unset "children[i]"
    ((status != 0 && code == 0)) || continue
    code=$status deadline=$((SECONDS + grace_s))
    echo "process $i ended with code $status; the others are stopped. Output of others: $logs" >&2
    ((i == 0)) || tail -n 5 "$logs/process_$i.log" >&2
    send TERM
  done
  [[ -z "$deadline" ]] || ((SECONDS < deadline)) || send KILL
done
((code != 0)) || rm -r "$logs"
exit "$code"
