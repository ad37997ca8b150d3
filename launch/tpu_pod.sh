#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on every host of a Cloud TPU pod slice, got as a queued resource; survives preemptions.
#
#   launch/tpu_pod.sh STEP [--dry_run] [TRAINING FLAGS]
#
# STEP is one of
#   create   asks for the slice
#   wait     until it is ACTIVE
#   install  brings this checkout's last commit to every host, with its environment
#   train    runs the training command on every host
#   run      all of these; when the slice is preempted, deletes it and starts over: the same
#            training command goes on from the last checkpoint
#   stop     asks the training to save and to end (first end a `run` with Ctrl-C)
#   delete   gives the slice back; it costs until then
# Environment:
#   TPU_NAME, ZONE         the slice's name and zone
#   CONFIG, DATA, WORKDIR  for train and run: the config, and shards and workdir that all hosts mount
#   SETUP                  a command for every host before the installation, such as that mount
#   ACCELERATOR            default v5litepod-16
#   RUNTIME                default by accelerator
#   SPOT=1                 a spot slice
#   PROJECT                default gcloud's
#   RESTARTS, POLL_S       slices used up at most (default 50), seconds between looks (default 30)
# Not run on real hardware here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
read_flags "$@"
step=${rest[0]:-}
case "$step" in
  train | run) ;;
  create | wait | install | stop | delete)
    ((${#rest[@]} == 1)) || fail "$step takes no training flags; got ${rest[*]:1}."
    ;;
  *) fail "a step must come first: create, wait, install, train, run, stop or delete; got '$step'." ;;
esac
need TPU_NAME stemgen
need ZONE us-west4-a
accelerator=${ACCELERATOR:-v5litepod-16} poll_s=${POLL_S:-30} restarts=${RESTARTS:-50}
need_count restarts
case "$accelerator" in
  v5litepod-*) runtime=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
  v5p-*) runtime=${RUNTIME:-v2-alpha-tpuv5} ;;
  v6e-*) runtime=${RUNTIME:-v2-alpha-tpuv6e} ;;
  v[234]-*) runtime=${RUNTIME:-tpu-ubuntu2204-base} ;;
  *)
    need RUNTIME v2-alpha-tpuv5-lite
    runtime=$RUNTIME
    ;;
esac
if [[ "$step" == train || "$step" == run ]]; then
  need_training
  need_shared DATA
  need_shared WORKDIR
fi
need_tool gcloud
if [[ -n "$dry_run" ]]; then
  scratch=/tmp/stemgen_jax
else
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
fi
log=$scratch/train.log

tpus() {
  run gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

on_hosts() {
  tpus tpu-vm ssh "$TPU_NAME" --worker=all --command="$1"
}

describe() {
  tpus queued-resources describe "$TPU_NAME" '--format=value(state.state)'
}

# The slice's state; ABSENT if there is none, UNKNOWN if gcloud cannot say.
state() {
  local text
  if text=$(describe 2>&1); then
    echo "${text##*$'\n'}"
  elif [[ "$text" == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo "$text" >&2
    echo UNKNOWN
  fi
}

create() {
  tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
    --accelerator-type="$accelerator" --runtime-version="$runtime" ${SPOT:+--spot}
}

delete() {
  tpus queued-resources delete "$TPU_NAME" --force --quiet
}

# Returns when the slice can be used; fails when it never will.
await() {
  if [[ -n "$dry_run" ]]; then
    describe
    return
  fi
  local now before=''
  while true; do
    now=$(state)
    [[ "$now" == "$before" ]] || echo "$(date +%T) $TPU_NAME is $now" >&2
    before=$now
    case "$now" in
      ACTIVE) return 0 ;;
      SUSPENDED | FAILED | ABSENT) return 1 ;;
    esac
    sleep "$poll_s"
  done
}

# The hosts' own Python is older than ours; uv brings one. Chained: `run` asks whether it succeeded.
install() {
  { [[ -z "${SETUP:-}" ]] || on_hosts "$SETUP"; } &&
    run git -C "$root" archive --format=tar.gz --output="$scratch/stemgen_jax.tar.gz" HEAD &&
    tpus tpu-vm scp "$scratch/stemgen_jax.tar.gz" "$TPU_NAME:" --worker=all &&
    on_hosts "mkdir -p stemgen_jax && tar -xzf stemgen_jax.tar.gz -C stemgen_jax && cd stemgen_jax \
&& python3 -m pip install --user --quiet uv && python3 -m uv venv --quiet --clear --python 3.12 .venv \
&& python3 -m uv pip install --quiet --python .venv/bin/python '.[tpu]'"
}

train() {
  train_command .venv/bin/python "$@"
  on_hosts "cd stemgen_jax && $(quote "${train[@]}")"
}

# Whether the slice is gone; it takes a while to be told.
lost() {
  local i
  for ((i = 0; i < 4; i++)); do
    case "$(state)" in
      ACTIVE | UNKNOWN) sleep "$poll_s" ;;
      *) return 0 ;;
    esac
  done
  return 1
}

run_through() {
  if [[ -n "$dry_run" ]]; then
    create && await && install && train "$@" && describe
    echo "when the slice is preempted, this, and then from the start:" >&2
    delete
    return
  fi
  local code slice
  for ((slice = 1; slice <= restarts; slice++)); do
    case "$(state)" in
      ABSENT) create ;;
      SUSPENDED | FAILED)
        delete
        create
        ;;
      UNKNOWN) fail "gcloud must be able to describe $TPU_NAME; it says why above." ;;
    esac
    await || continue
    code=0
    : > "$log"
    { install && train "$@" 2>&1 | tee "$log"; } || code=$?
    if grep -q 'stopped by SIGTERM' "$log"; then
      code=143 # saved, and not at its end
    elif ((code == 0)); then
      echo "done; the slice costs until you give it back: launch/tpu_pod.sh delete" >&2
      return 0
    fi
    echo "ended with code $code; looking whether the slice was preempted" >&2
    if ! lost && ((code != 143)); then
      echo "the slice is still there: see what went wrong above, then give the same command" >&2
      return "$code"
    fi
  done
  fail "training must end within RESTARTS=$restarts slices; it did not. Give the same command to go on."
}

case "$step" in
  wait) await || fail "$TPU_NAME must become ACTIVE; it is $(state). Delete it, and create it anew." ;;
  run) run_through "${rest[@]:1}" ;;
  train) train "${rest[@]:1}" ;;
  stop) on_hosts "pkill -TERM -f '[s]temgen_jax.train'" ;;
  *) "$step" ;;
esac
