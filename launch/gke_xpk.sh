#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on a TPU slice of a GKE cluster, through xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   launch/gke_xpk.sh [--dry_run] [TRAINING FLAGS]
#
# Environment:
#   CLUSTER, WORKLOAD, ZONE  the cluster that xpk has made, a new name for this run, the zone
#   CONFIG, DATA, WORKDIR    the config, and shards and workdir on storage that the pods mount
#   IMAGE                    an image whose working directory is this repository, installed; or
#   BASE_IMAGE               an image with Python (default python:3.12): this checkout's last commit
#                            is laid over it, and installed when a pod starts
#   ACCELERATOR              default v5litepod-16
#   PROJECT                  default gcloud's
#   RESTARTS                 restarts at most after preemptions (default 50)
#   GRACE_S                  seconds a pod has to save when it is told to end (default 120)
#   XPK_FLAGS                more flags for xpk, split at spaces: '--storage=shared --num-slices=2'
# Not run on real hardware here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
read_flags "$@"
need CLUSTER stemgen-cluster
need WORKLOAD slakh-1
need ZONE us-west4-a
need_training
need_shared DATA
need_shared WORKDIR
restarts=${RESTARTS:-50} grace_s=${GRACE_S:-120}
need_count restarts
need_count grace_s
[[ -z "${IMAGE:-}" || -z "${BASE_IMAGE:-}" ]] ||
  fail "only one of IMAGE and BASE_IMAGE may be set; got IMAGE=$IMAGE BASE_IMAGE=$BASE_IMAGE."
need_tool xpk

train_command python "${rest[@]}"
# xpk runs this in a subshell that it sends SIGTERM to: exec puts our process in that one's place.
# It restarts pods that end with code 143, which until_done.sh returns after a stop.
command="exec bash launch/until_done.sh $(quote "${train[@]}")"
if [[ -n "${IMAGE:-}" ]]; then
  image=(--docker-image="$IMAGE")
else
  if [[ -n "$dry_run" ]]; then
    scratch=/tmp/stemgen_jax
  else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
  fi
  # A clean copy: the checkout itself may hold gigabytes of runs.
  run mkdir -p "$scratch/code"
  run git -C "$root" archive --format=tar --output="$scratch/code.tar" HEAD
  run tar -xf "$scratch/code.tar" -C "$scratch/code"
  image=(--base-docker-image="${BASE_IMAGE:-python:3.12}" --script-dir="$scratch/code")
  command="pip install --quiet '.[tpu]' && $command"
fi
read -ra extra <<< "${XPK_FLAGS:-}"
run xpk workload create --cluster="$CLUSTER" --workload="$WORKLOAD" --zone="$ZONE" \
  ${PROJECT:+--project="$PROJECT"} --tpu-type="${ACCELERATOR:-v5litepod-16}" "${image[@]}" \
  --max-restarts="$restarts" --termination-grace-period-seconds="$grace_s" \
  "${extra[@]}" --command="$command"
