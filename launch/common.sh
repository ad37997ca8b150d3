#!/usr/bin/env bash
# What the launch scripts share: their help, their complaints, and commands that --dry_run prints.

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
  [[ -n "${dry_run:-}" ]] || command -v "$1" > /dev/null ||
    fail "$1 must be installed; it is not on PATH. With --dry_run it is not needed."
}

# run COMMAND...: runs it; with --dry_run prints it instead, quoted for a shell.
run() {
  if [[ -n "${dry_run:-}" ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# quote WORD...: one line that a shell reads as these words again.
quote() {
  local line
  printf -v line ' %q' "$@"
  echo "${line:1}"
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
