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
#   train    starts the training command on every host, and follows it
#   follow   shows the log of the training under way, from its beginning, and follows it
#   run      all of these; when the slice is preempted, deletes it and starts over: the same
#            training command goes on from the last checkpoint. A training under way is followed
#   stop     asks the training to save and to end (first end a `run` with Ctrl-C)
#   delete   gives the slice back; it costs until then
# The training goes on by itself on the hosts: a connection that breaks is made anew, Ctrl-C only
# ends the following. Its log is stemgen_jax/train.log on the first host.
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
  create | wait | install | follow | stop | delete)
    ((${#rest[@]} == 1)) || fail "$step takes no training flags; got ${rest[*]:1}."
    ;;
  *) fail "a step must come first: create, wait, install, train, follow, run, stop or delete; got '$step'." ;;
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

# The hosts keep the command, its output and its exit code in files: no connection has to stay.
start_training() {
  train_command .venv/bin/python "$@"
  local script
  script="$(quote "${train[@]}"); echo \$? > train.code"
  on_hosts "cd stemgen_jax && rm -f train.code && printf '%s\\n' ${script@Q} > train.sh && { nohup bash train.sh \
> train.log 2>&1 < /dev/null & echo \$! > train.pid; }"
}

# on_first COMMAND: on the host whose process speaks.
on_first() {
  tpus tpu-vm ssh "$TPU_NAME" --worker=0 --command="$1"
}

is_training() {
  [[ -z "$dry_run" ]] && on_first 'kill -0 $(cat stemgen_jax/train.pid)' > /dev/null 2>&1
}

# Shows the log as it grows, and returns the code that the training ends with; 255 where the slice
# is lost. What has been shown is not shown again after a connection broke.
follow() {
  local seen=0 told=''
  : > "$log"
  while true; do
    on_first "cd stemgen_jax && tail -n +$((seen + 1)) -f --pid=\$(cat train.pid) train.log \
&& echo \"training ended with code \$(cat train.code || echo 1)\"" | tee -a "$log" || true
    if [[ -n "$dry_run" ]]; then
      return
    elif [[ "$(tail -n 1 "$log")" =~ ^training\ ended\ with\ code\ ([0-9]+)$ ]]; then
      return "${BASH_REMATCH[1]}"
    fi
    case "$(state)" in
      ACTIVE | UNKNOWN) ;;
      *) return 255 ;;
    esac
    [[ -n "$told" ]] || echo "the connection broke; the training goes on, and so do its costs" >&2
    told=1 seen=$(wc -l < "$log")
    sleep "$poll_s"
  done
}

train() {
  start_training "$@" && follow
}

# Says what is still to be paid for, when it is no longer followed.
say_cost() {
  [[ -n "$dry_run" ]] ||
    echo "$TPU_NAME costs until you give it back: launch/tpu_pod.sh delete" >&2
}

leave() {
  echo "the training goes on without you; to see it again: launch/tpu_pod.sh follow" >&2
  say_cost
  exit 130
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
    if is_training; then
      echo "a training is under way on $TPU_NAME: it is followed" >&2
      follow || code=$?
    else
      : > "$log"
      { install && train "$@"; } || code=$?
    fi
    if grep -q 'stopped by SIGTERM' "$log"; then
      code=143 # saved, and not at its end
    elif ((code == 0)); then
      echo "done" >&2
      say_cost
      return 0
    fi
    echo "ended with code $code; looking whether the slice was preempted" >&2
    if ! lost && ((code != 143)); then
      echo "the slice is still there: see what went wrong above, then give the same command" >&2
      say_cost
      return "$code"
    fi
  done
  fail "training must end within RESTARTS=$restarts slices; it did not. Give the same command to go on."
}

# followed COMMAND...: what lasts as long as the training; whoever leaves is told what goes on.
followed() {
  trap leave INT TERM HUP
  local code=0
  "$@" || code=$?
  say_cost
  return "$code"
}

case "$step" in
  wait) await || fail "$TPU_NAME must become ACTIVE; it is $(state). Delete it, and create it anew." ;;
  run)
    trap leave INT TERM HUP
    run_through "${rest[@]:1}"
    ;;
  train) followed train "${rest[@]:1}" ;;
  follow) followed follow ;;
  stop) on_hosts "pkill -TERM -f '[p]ython -m stemgen_jax.train'" ;;
  *) "$step" ;;
esac
