#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the launch scripts share: their help, their complaints, and commands that --dry_run prints.

# fail MESSAGE: one line, and exit code 2.
fail() {
  echo "error: $*" >&2
  exit 2
}

# usage SCRIPT: prints the comment that opens a script, without its marks.
usage() {
  sed -n '3,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"
}

# need NAME EXAMPLE: fails unless the variable NAME is set.
need() {
  [[ -n "${!1:-}" ]] || fail "$1 must be set; got nothing. For example: export $1=$2"
}

# need_tool NAME: fails unless the command exists, or nothing is to be run.
need_tool() {
  [[ -n "$dry_run" ]] || command -v "$1" > /dev/null ||
    fail "$1 must be installed; it is not on PATH. With --dry_run it is not needed."
}

# need_count NAME: fails unless the variable NAME is a positive integer.
need_count() {
  [[ "${!1}" =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a positive integer; got $1=${!1}."
}

# need_training: fails unless the variables that every training command needs are set.
need_training() {
  need CONFIG configs/slakh_pod.py
  need DATA /mnt/shared/shards/slakh
  need WORKDIR /mnt/shared/runs/slakh
}

# need_shared NAME: fails unless the variable NAME is a path that every host could mount.
need_shared() {
  [[ "${!1}" == /* ]] ||
    fail "$1 must be an absolute path that every host mounts; got $1=${!1}. See launch/README.md."
}

# quote WORD...: one line that bash reads as these words again.
quote() {
  local word line=''
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line:1}"
}

# run COMMAND...: runs it; with --dry_run prints it instead, quoted for a shell.
run() {
  if [[ -n "$dry_run" ]]; then
    echo "+ $(quote "$@")"
  else
    "$@"
  fi
}

# train_command PYTHON FLAG...: the training command in the array `train`, from the environment.
# shellcheck disable=SC2034 # read by the scripts that source this
train_command() {
  train=(
    "$1" -m stemgen_jax.train --distributed
    --config "$CONFIG" --workdir "$WORKDIR" "--config.data.path=$DATA" "${@:2}"
  )
}

# read_flags "$@": takes --dry_run and --help wherever they stand; the rest goes to the array `rest`.
read_flags() {
  dry_run=''
  rest=()
  local word
  for word in "$@"; do
    case "$word" in
      --dry_run) dry_run=1 ;;
      --help | -h)
        usage "$0"
        exit 0
        ;;
      *) rest+=("$word") ;;
    esac
  done
}
