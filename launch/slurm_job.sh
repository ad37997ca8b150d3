#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The job that launch/slurm.sh submits: a training command in every task, and back into the queue.
#
#   sbatch ... launch/slurm_job.sh python -m stemgen_jax.train --distributed ...
#
# Slurm runs a copy of it elsewhere, so it stands alone.
set -euo pipefail
if [[ "${1:-}" == --help ]]; then
  sed -n '3,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 0
fi
if [[ -z "${SLURM_JOB_ID:-}" ]] || (($# == 0)); then
  echo "error: this must be a Slurm job with a command; got none. Use launch/slurm.sh." >&2
  exit 2
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
# srun takes no --cpus-per-task from sbatch. The signal before the time limit goes to its tasks only.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$@" 2>&1 | tee "$log" ||
  code=$?
if ((code == 0)) && grep -q 'stopped by SIGTERM' "$log"; then
  echo "not at its end: job $SLURM_JOB_ID goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
