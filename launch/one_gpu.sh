#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to the paper's tables on one GPU: Slakh2100, its tokens, a model, its scores.
#
#   launch/one_gpu.sh [--dry_run] [--fetch] [--stage NAME] [--out DIR] ... [TRAINING FLAGS]
#
# The stages, in order; each prints its commands. What is finished is skipped, and what was cut off
# goes on with the same command, but for extract, which begins anew.
#   check     a GPU, free disk space, the archive's MD5; with --fetch the archive is fetched first
#   codec     the codec's weights become a bundle; fetched by name, or from a folder or file
#   extract   the archive
#   tokenize  stems and context mixes become tokens, on the GPU
#   inspect   every record of the tokens is checked
#   train     training, until its last step or until validation accuracy stays flat
#   evaluate  the paper's protocol on the held-out songs
#   tables    the settings of the paper's tables, compared
# Settings, as flags (--out DIR) or in the environment (OUT=DIR):
#   --out         folder of all that is made (default runs/one_gpu)
#   --archive     the archive (default slakh2100_flac_redux.tar.gz in that folder)
#   --url, --md5  where it is fetched from, its MD5 or any (default Slakh2100's; see data_prep.fetch)
#   --music       a folder of Slakh2100 that is extracted already, in the place of the archive
#   --codec_from  weights of the codec (default facebook/encodec_32khz), as data_prep.convert_codec
#                 takes them; --licence TEXT where theirs is not known
#   --codec       a codec bundle that is there already
#   --config      default configs/slakh.py
#   --categories  table of the instruments that the config knows (default Slakh's own classes)
#   --device      cuda (default) or cpu
#   --mixes       context mixes of a clip (default 24)
#   --examples    windows that are judged (default 400)
#   --free_gb     GB that must be free for what is left to do (default: an estimate)
#   --stage       this stage alone
# Environment: PYTHON (default python); TOKENIZE_FLAGS (default '--workers 4' with cuda) and
# EVALUATE_FLAGS, more flags for these two, split at spaces.
# Training flags (--config.optim.steps=1000) go to stemgen_jax.train.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
stages=(check codec extract tokenize inspect train evaluate tables)
settings=' out archive url md5 music codec_from licence codec config categories device mixes examples free_gb stage '
read_flags "$@"
training=()
set -- "${rest[@]}"
while (($# > 0)); do
  word=${1#--} name=${word%%=*}
  if [[ "$1" == --fetch ]]; then
    FETCH=1
  elif [[ "$1" == --config.*=* ]]; then
    training+=("$1")
  elif [[ "$1" == --* && "$settings" == *" $name "* ]]; then
    if [[ "$word" == *=* ]]; then
      value=${word#*=}
    else
      (($# > 1)) || fail "--$name must have a value; got none. See --help."
      value=$2
      shift
    fi
    printf -v "${name^^}" '%s' "$value"
  else
    fail "flags must be known; got $1. See --help."
  fi
  shift
done
python=${PYTHON:-python} out=${OUT:-runs/one_gpu} music=${MUSIC:-} device=${DEVICE:-cuda}
mixes=${MIXES:-24} examples=${EXAMPLES:-400} stage=${STAGE:-}
archive=${ARCHIVE:-$out/slakh2100_flac_redux.tar.gz} codec=${CODEC:-$out/codec}
tokens=$out/tokens/slakh model=$out/model
need_count mixes
need_count examples
[[ "$device" == cuda || "$device" == cpu ]] || fail "device must be cuda or cpu; got device=$device."
[[ -z "$stage" || " ${stages[*]} " == *" $stage "* ]] ||
  fail "stage must be one of ${stages[*]}; got stage=$stage."
[[ -z "${FREE_GB:-}" || "$FREE_GB" =~ ^[0-9]+$ ]] ||
  fail "free_gb must be a whole number; got free_gb=$FREE_GB."
need_tool "$python"
platforms=$device
[[ "$device" == cpu ]] || platforms=$device,cpu
jax=(env "JAX_PLATFORMS=$platforms" "$python" -m)

# call COMMAND...: prints it, runs it, passes SIGTERM and Ctrl-C on, and returns its exit code; ends
# this script if it was told to stop meanwhile.
child='' asked=''
trap 'asked=1; [[ -z "$child" ]] || kill -TERM "$child" 2> /dev/null || true' INT TERM
call() {
  echo "+ $(quote "$@")"
  [[ -z "$dry_run" ]] || return 0
  [[ -z "$asked" ]] || exit 143
  local code=0
  "$@" &
  child=$!
  wait "$child" || code=$?
  while kill -0 "$child" 2> /dev/null; do # the signal has interrupted the wait
    code=0
    wait "$child" || code=$?
  done
  child=''
  if [[ -n "$asked" ]]; then
    echo "stopped; the same command goes on" >&2
    exit 143
  fi
  return "$code"
}

# call_or_warn WARNING COMMAND...: as call; exit code 3 is a warning.
call_or_warn() {
  local code=0
  call "${@:2}" || code=$?
  ((code != 3)) || echo "warning: $1; see above" >&2
  ((code == 0 || code == 3)) || return "$code"
}

# The GB that are needed yet: what is extracted is as large as the archive, for flac does not shrink;
# tokens are a fifteenth, twice while they are made; checkpoints of the paper's size take 20 GB.
estimate_gb() {
  local bytes=0
  if [[ -z "$music" && -f "$archive" ]]; then
    bytes=$(wc -c < "$archive")
  elif [[ -z "$music" && -z "${MD5:-}" ]]; then
    bytes=$((2 * 104322767708))
  fi
  echo $((bytes * 17 / 15 / 1000000000 + 25))
}

stage_check() {
  local there="import jax, torch; print(jax.devices('$device'), torch.ones(1, device='$device').device)"
  local log=''
  if [[ -z "$dry_run" ]]; then
    log=$out/device.log
    [[ -n "$music" || -n "${FETCH:-}" || -f "$archive" ]] ||
      fail "archive must be Slakh2100's; got archive=$archive, which is missing. Give --fetch, or put it there."
    local free_gb need_gb=${FREE_GB:-$(estimate_gb)}
    free_gb=$(($(df -Pk "$out" | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p') / 976563))
    ((free_gb >= need_gb)) ||
      fail "$need_gb GB must be free in $out; got $free_gb GB. Free space, or give another --out or --free_gb."
  fi
  call "${jax[@]:0:3}" -c "$there" 2> "${log:=/dev/null}" || {
    tail -n 1 "$log" >&2 # of a traceback
    fail "device must be usable by JAX and torch; got device=$device. Install '.[cuda,data]', or give --device cpu."
  }
  [[ -n "$music" ]] ||
    call "$python" -m data_prep.fetch --out "$archive" ${URL:+--url "$URL"} ${MD5:+--md5 "$MD5"}
}

stage_codec() {
  [[ -n "${CODEC:-}" ]] || call "$python" -m data_prep.convert_codec \
    --from "${CODEC_FROM:-facebook/encodec_32khz}" --out "$codec" ${LICENCE:+--licence "$LICENCE"}
}

# Prints the folder in DIR, or up to two below it, that holds the training songs.
find_train() {
  local folder
  for folder in "$1" "$1"/*/ "$1"/*/*/; do
    if [[ -d "${folder%/}/train" ]]; then
      echo "${folder%/}"
      return
    fi
  done
  fail "the archive must hold a folder train; got $archive without. Give Slakh2100's, redux split."
}

stage_extract() {
  [[ -z "$music" ]] || return 0
  local partial=$out/.music.partial found
  call rm -rf "$partial" "$out/music"
  call mkdir -p "$partial"
  call tar -xf "$archive" -C "$partial"
  if [[ -n "$dry_run" ]]; then found="$partial/TOP"; else found=$(find_train "$partial"); fi
  call mv "$found" "$out/music"
  call rm -rf "$partial"
}

stage_tokenize() {
  local extra default=''
  [[ "$device" == cpu ]] || default='--workers 4'
  read -ra extra <<< "${TOKENIZE_FLAGS:-$default}"
  call_or_warn "songs were left out" "${jax[@]}" data_prep.tokenize --corpus slakh \
    --root "${music:-$out/music}" --codec "$codec" \
    --categories "${CATEGORIES:-$root/data_prep/corpora/slakh_classes.yaml}" --out "$out/tokens" \
    --name slakh --mixes "$mixes" --backend torch --device "$device" "${extra[@]}"
}

stage_inspect() {
  call_or_warn "the same music is in two splits" "$python" -m data_prep.inspect "$tokens" \
    --codec "$codec"
}

stage_train() {
  call "${jax[@]}" stemgen_jax.train --config "${CONFIG:-$root/configs/slakh.py}" \
    --workdir "$model" "--config.data.path=$tokens" "${training[@]}"
}

judged=(--checkpoint "$model" --codec "$codec" --data "$tokens" --examples "$examples")

stage_evaluate() {
  local extra
  read -ra extra <<< "${EVALUATE_FLAGS:-}"
  call "${jax[@]}" stemgen_jax.evaluate "${judged[@]}" --protocol paper --out "$out/report" \
    "${extra[@]}"
}

stage_tables() {
  local number
  for number in 1 2 3; do
    call "${jax[@]}" stemgen_jax.sweep "${judged[@]}" --out "$out/table$number" \
      --settings "$root/configs/table$number.jsonl"
  done
}

[[ -n "$dry_run" ]] || mkdir -p "$out/stamps"
for ((i = 0; i < ${#stages[@]}; i++)); do
  name=${stages[i]}
  [[ -z "$stage" || "$stage" == "$name" ]] || continue
  plan=$(dry_run=1 "stage_$name") stamp=$out/stamps/$name
  if [[ -n "$dry_run" ]]; then
    echo "$name:" >&2
    [[ -z "$plan" ]] || echo "$plan"
    continue
  fi
  if [[ -f "$stamp" && "$(< "$stamp")" == "$plan" ]]; then
    echo "$name: finished before; remove $stamp to do it again"
    continue
  fi
  echo "$name:"
  for later in "${stages[@]:i}"; do rm -f "$out/stamps/$later"; done
  "stage_$name"
  echo "$plan" > "$stamp.part"
  mv "$stamp.part" "$stamp"
done
