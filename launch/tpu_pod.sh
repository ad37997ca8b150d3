#!/usr/bin/env bash
# Trains on every host of a Cloud TPU pod slice.
#
#   launch/tpu_pod.sh TPU_NAME ZONE --config configs/slakh.py --workdir /mnt/shared/run \
#     --config.data.path=/mnt/shards/slakh
#
# Expects this repository with its environment (pip install ".[tpu]") in ~/stemgen_jax on each host,
# and shards and a workdir that every host mounts. JAX finds the other hosts by itself on Cloud TPU.
# Not yet run on a pod.
set -euo pipefail
if (( $# < 4 )); then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command \
  "cd ~/stemgen_jax && python -m stemgen_jax.train --distributed $(printf '%q ' "$@")"
