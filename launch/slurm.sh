#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Submits training on GPUs to Slurm, as a job that requeues itself until it is done.
#
#   launch/slurm.sh [--dry_run] [TRAINING FLAGS]
#
# One process a GPU; JAX finds the others by Slurm's variables. Two minutes before its time is up the
# job is told to save, and goes back into the queue. To be run in this repository, on storage that the
# nodes share.
# Environment:
#   PARTITION              the partition
#   CONFIG, DATA, WORKDIR  the config, and shards and workdir on storage that the nodes share
#   NODES, GPUS_PER_NODE   default 1 and 8
#   CPUS_PER_GPU           default 8
#   TIME                   the job's limit (default 24:00:00)
#   ACCOUNT                default the user's
#   PYTHON                 default .venv/bin/python, with the `cuda` extra installed
# Not run on a cluster here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"
read_flags "$@"
need PARTITION gpu
need_training
nodes=${NODES:-1} gpus_per_node=${GPUS_PER_NODE:-8} cpus_per_gpu=${CPUS_PER_GPU:-8}
need_count nodes
need_count gpus_per_node
need_count cpus_per_gpu
need_tool sbatch

train_command "${PYTHON:-.venv/bin/python}" "${rest[@]}"
# Not --gpus-per-task: JAX takes GPU i of those it sees for the node's process i, so all see all.
run sbatch --job-name=stemgen --partition="$PARTITION" ${ACCOUNT:+--account="$ACCOUNT"} \
  --nodes="$nodes" --ntasks-per-node="$gpus_per_node" --gres="gpu:$gpus_per_node" \
  --cpus-per-task="$cpus_per_gpu" --time="${TIME:-24:00:00}" --signal=TERM@120 --requeue \
  --open-mode=append --output=stemgen-%j.log "$here/slurm_job.sh" "${train[@]}"
