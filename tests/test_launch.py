# SPDX-License-Identifier: Apache-2.0
"""The launch scripts: what they would run, what they complain of, and processes that come and go.

Stand-ins take the place of Python, gcloud, srun and scontrol; no cluster is needed.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time

import pytest
from launching import ROOT, dry_run, environment, install, launch, option

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
COMMANDS = [path for path in SCRIPTS if path.stem != "common"]
TRAINING = {"CONFIG": "configs/slakh.py", "DATA": "/mnt/my shards", "WORKDIR": "/mnt/a run"}
TPU = {"TPU_NAME": "tpu", "ZONE": "us-west4-a", **TRAINING}
GKE = {"CLUSTER": "pool", "WORKLOAD": "one", "ZONE": "us-west4-a", **TRAINING}
SLURM = {"PARTITION": "gpu", **TRAINING}
TRAINED = [
  "-m",
  "stemgen_jax.train",
  "--distributed",
  "--config",
  "configs/slakh.py",
  "--workdir",
  "/mnt/a run",
  "--config.data.path=/mnt/my shards",
  "--config.name=it's a $name",
]
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then exec "$REAL_PYTHON" "$@"; fi
me=$RECORD/$STEMGEN_PROCESS
trap 'touch "$me.saved"; exit 0' TERM
printf '%s\\n' "$STEMGEN_COORDINATOR" "$STEMGEN_PROCESSES" "$JAX_PLATFORMS" "$@" > "$me.words"
echo "words of process $STEMGEN_PROCESS"
echo "$$" > "$me.part" && mv "$me.part" "$me.pid"
case "$PLAY$STEMGEN_PROCESS" in
  end*) exit 0 ;;
  fail1) while [[ ! -e "$RECORD/0.pid" || ! -e "$RECORD/2.pid" ]]; do sleep 0.05; done; exit 3 ;;
  deaf0) trap '' TERM; touch "$RECORD/deaf" ;;
  deaf1) while [[ ! -e "$RECORD/deaf" ]]; do sleep 0.05; done; exit 4 ;;
esac
for _ in {1..600}; do sleep 0.05; done
exit 5
"""
FAKE_GCLOUD = """#!/usr/bin/env bash
# Answers with the first line of $RECORD/states or trainings, and takes it away.
take() {
  head -n 1 "$RECORD/$1"
  sed -i 1d "$RECORD/$1"
}
case "$*" in
  *' describe '*) echo describe; state=$(take states) ;;
  *'tail -n +'*) echo follow ;;
  *'kill -0'*) echo look; exit 1 ;;
  *stemgen_jax.train*) echo train ;;
  *) echo "$4" ;;
esac >> "$RECORD/calls"
case "$*" in
  *' describe '*)
    if [[ "$state" == NOT_FOUND ]]; then echo NOT_FOUND >&2; exit 1; fi
    echo "$state"
    ;;
  *'tail -n +'*)
    read -r code text < <(take trainings)
    echo "$text"
    if ((code == 255)); then exit 255; fi
    echo "training ended with code $code"
    ;;
esac
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_is_sound_bash(path):
  subprocess.run(["bash", "-n", path], check=True)
  assert os.access(path, os.X_OK)
  if shutil.which("shellcheck") is None:
    pytest.skip("shellcheck is not installed")
  done = subprocess.run(["shellcheck", "-x", path], capture_output=True, cwd=ROOT, text=True)
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_is_the_opening_comment(tmp_path, path):
  done = launch(tmp_path, path.stem, "--help")
  assert done.returncode == 0, done.stderr
  assert f"launch/{path.name} " in done.stdout
  assert "SPDX" not in done.stdout
  assert "set -e" not in done.stdout


@pytest.mark.parametrize(
  ("script", "words", "variables", "complaint"),
  [
    ("local", [], {}, "number of processes"),
    ("local", ["0", "--config", "x"], {}, "number of processes"),
    ("local", ["2"], {}, "training flags"),
    ("local", ["2", "--config", "x"], {"PYTHON": "no_such_python"}, "no_such_python"),
    ("local", ["2", "--config", "x"], {"GRACE_S": "soon"}, "grace_s"),
    ("tpu_pod", [], TPU, "a step"),
    ("tpu_pod", ["fly"], TPU, "'fly'"),
    ("tpu_pod", ["delete", "--config.seed=1"], TPU, "--config.seed=1"),
    ("tpu_pod", ["create"], TPU | {"TPU_NAME": ""}, "export TPU_NAME="),
    ("tpu_pod", ["create"], TPU | {"ZONE": ""}, "export ZONE="),
    ("tpu_pod", ["create"], TPU | {"ACCELERATOR": "v9-8"}, "export RUNTIME="),
    ("tpu_pod", ["run"], TPU | {"CONFIG": ""}, "export CONFIG="),
    ("tpu_pod", ["train"], TPU | {"WORKDIR": "runs/here"}, "WORKDIR=runs/here"),
    ("tpu_pod", ["run"], TPU | {"RESTARTS": "-1"}, "restarts=-1"),
    ("tpu_pod", ["create"], TPU, "gcloud must be installed"),
    ("gke_xpk", [], GKE | {"CLUSTER": ""}, "export CLUSTER="),
    ("gke_xpk", [], GKE | {"WORKLOAD": ""}, "export WORKLOAD="),
    ("gke_xpk", [], GKE | {"DATA": "gs://bucket/shards"}, "DATA=gs://bucket/shards"),
    ("gke_xpk", [], GKE | {"IMAGE": "a", "BASE_IMAGE": "b"}, "BASE_IMAGE=b"),
    ("gke_xpk", [], GKE, "xpk must be installed"),
    ("slurm", [], SLURM | {"PARTITION": ""}, "export PARTITION="),
    ("slurm", [], SLURM | {"DATA": ""}, "export DATA="),
    ("slurm", [], SLURM | {"NODES": "two"}, "nodes=two"),
    ("slurm", [], SLURM, "sbatch must be installed"),
    ("slurm_job", ["true"], {}, "Slurm job"),
    ("until_done", [], {}, "command"),
  ],
)
def test_what_is_missing_is_one_line(tmp_path, script, words, variables, complaint):
  done = launch(tmp_path, script, *words, **variables)
  assert done.returncode == 2
  assert done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ")
  assert complaint in line


def test_local_would_run(tmp_path):
  commands = dry_run(tmp_path, "local", "2", "--workdir", "a run", PYTHON="no_such_python")
  for i, words in enumerate(commands):
    assert words == [
      "env",
      "JAX_PLATFORMS=cpu",
      "STEMGEN_COORDINATOR=127.0.0.1:PORT",
      "STEMGEN_PROCESSES=2",
      f"STEMGEN_PROCESS={i}",
      "no_such_python",
      "-m",
      "stemgen_jax.train",
      "--distributed",
      "--workdir",
      "a run",
    ]
  assert len(commands) == 2


def test_tpu_pod_would_run(tmp_path):
  more = {"SPOT": "1", "PROJECT": "mine", "SETUP": "sudo mount 'a b'"}
  commands = dry_run(tmp_path, "tpu_pod", "run", TRAINED[-1], **TPU, **more)
  create, wait, setup, pack, copy, installed, train, follow, look, delete = commands
  resources = ["gcloud", "compute", "tpus", "queued-resources"]
  assert create == [
    *resources,
    "create",
    "tpu",
    "--node-id=tpu",
    "--accelerator-type=v5litepod-16",
    "--runtime-version=v2-alpha-tpuv5-lite",
    "--spot",
    "--zone=us-west4-a",
    "--project=mine",
  ]
  assert wait[:6] == look[:6] == [*resources, "describe", "tpu"]
  assert delete[:6] == [*resources, "delete", "tpu"]
  assert {"--force", "--quiet"} <= set(delete)
  assert pack[0] == "git"
  assert copy[3:5] == ["tpu-vm", "scp"]
  for words in (setup, installed, train):
    assert words[3:7] == ["tpu-vm", "ssh", "tpu", "--worker=all"]
  assert option(setup, "--command") == more["SETUP"]
  assert "'.[tpu]'" in option(installed, "--command")
  remote = shlex.split(option(train, "--command"))
  kept = shlex.split(remote[remote.index("printf") + 2].removesuffix("; echo $? > train.code"))
  assert kept == [".venv/bin/python", *TRAINED]
  assert {"nohup", "train.sh", "train.log"} <= set(remote)
  assert follow[3:7] == ["tpu-vm", "ssh", "tpu", "--worker=0"]
  assert "tail -n +1 -f" in option(follow, "--command")


@pytest.mark.parametrize(
  ("accelerator", "runtime"),
  [("v5p-16", "v2-alpha-tpuv5"), ("v6e-16", "v2-alpha-tpuv6e"), ("v4-32", "tpu-ubuntu2204-base")],
)
def test_each_tpu_has_its_runtime(tmp_path, accelerator, runtime):
  (words,) = dry_run(tmp_path, "tpu_pod", "create", **TPU, ACCELERATOR=accelerator)
  assert option(words, "--runtime-version") == runtime
  assert "--spot" not in words


def test_gke_would_run(tmp_path):
  *_, words = dry_run(tmp_path, "gke_xpk", TRAINED[-1], **GKE, XPK_FLAGS="--num-slices=2 --spot")
  assert words[:3] == ["xpk", "workload", "create"]
  assert {
    "--cluster=pool",
    "--workload=one",
    "--tpu-type=v5litepod-16",
    "--max-restarts=50",
    "--base-docker-image=python:3.12",
    "--num-slices=2",
    "--spot",
  } <= set(words)
  assert (option(words, "--script-dir")) == "/tmp/stemgen_jax/code"
  inside = ["exec", "bash", "launch/until_done.sh", "python", *TRAINED]
  install_first = ["pip", "install", "--quiet", ".[tpu]", "&&"]
  assert shlex.split(option(words, "--command")) == [*install_first, *inside]
  (words,) = dry_run(tmp_path, "gke_xpk", TRAINED[-1], **GKE, IMAGE="mine:1")
  assert option(words, "--docker-image") == "mine:1"
  assert shlex.split(option(words, "--command")) == inside


def test_slurm_would_run(tmp_path):
  (words,) = dry_run(tmp_path, "slurm", TRAINED[-1], **SLURM, NODES="2", GPUS_PER_NODE="4")
  assert words[0] == "sbatch"
  assert {
    "--partition=gpu",
    "--nodes=2",
    "--ntasks-per-node=4",
    "--gres=gpu:4",
    "--time=24:00:00",
    "--signal=TERM@120",
    "--requeue",
  } <= set(words)
  job = words.index(str(ROOT / "launch/slurm_job.sh"))
  assert words[job + 1 :] == [".venv/bin/python", *TRAINED]


def is_running(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def wait_for(paths):
  deadline = time.monotonic() + 30
  while not all(path.exists() for path in paths):
    assert time.monotonic() < deadline, f"not all of {paths} appeared"
    time.sleep(0.05)


def nothing_left(tmp_path, count):
  wait_for([tmp_path / f"{i}.pid" for i in range(count)])
  return not any(is_running(int((tmp_path / f"{i}.pid").read_text())) for i in range(count))


def test_local_starts_processes_that_know_each_other(tmp_path):
  install(tmp_path, "python", FAKE_PYTHON)
  done = launch(tmp_path, "local", "3", "--workdir", "a run", PLAY="end")
  assert done.returncode == 0, done.stderr
  assert done.stdout == "words of process 0\n"
  records = [(tmp_path / f"{i}.words").read_text().splitlines() for i in range(3)]
  assert records[0] == records[1] == records[2]
  address, *rest = records[0]
  host, port = address.split(":")
  assert host == "127.0.0.1"
  assert int(port) > 0
  words = ["-m", "stemgen_jax.train", "--distributed", "--workdir", "a run"]
  assert rest == ["3", "cpu", *words]
  assert not list(tmp_path.glob("tmp.*"))  # the folder of logs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_the_signal_on_and_waits(tmp_path, number):
  install(tmp_path, "python", FAKE_PYTHON)
  process = subprocess.Popen(
    [ROOT / "launch/local.sh", "3", "--workdir", "run"],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    env=environment(tmp_path, PLAY="wait"),
  )
  wait_for([tmp_path / f"{i}.pid" for i in range(3)])
  process.send_signal(number)
  assert process.wait(timeout=30) == 0
  assert len(list(tmp_path.glob("*.saved"))) == 3
  assert nothing_left(tmp_path, 3)


def test_local_stops_the_others_when_one_fails(tmp_path):
  install(tmp_path, "python", FAKE_PYTHON)
  done = launch(tmp_path, "local", "3", "--workdir", "run", PLAY="fail")
  assert done.returncode == 3
  assert "process 1 ended with code 3" in done.stderr
  assert {path.name for path in tmp_path.glob("*.saved")} == {"0.saved", "2.saved"}
  assert "words of process 1" in done.stderr  # its last lines
  (logs,) = tmp_path.glob("tmp.*")
  assert str(logs) in done.stderr
  assert nothing_left(tmp_path, 3)


def test_local_kills_what_does_not_end(tmp_path):
  install(tmp_path, "python", FAKE_PYTHON)
  done = launch(tmp_path, "local", "2", "--workdir", "run", PLAY="deaf", GRACE_S="1")
  assert done.returncode == 4
  assert nothing_left(tmp_path, 2)


def test_until_done_tells_a_stop_from_the_end(tmp_path):
  script = ROOT / "launch/until_done.sh"
  saves = "trap 'exit 0' TERM; touch ready; while true; do sleep 0.05; done"
  process = subprocess.Popen([script, "bash", "-c", saves], cwd=tmp_path)
  wait_for([tmp_path / "ready"])
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 143
  assert subprocess.run([script, "true"], check=False).returncode == 0
  assert subprocess.run([script, "bash", "-c", "exit 2"], check=False).returncode == 2


def follow(tmp_path, states, trainings, **variables):
  """What `tpu_pod.sh run` does as the slice passes through these states."""
  install(tmp_path, "gcloud", FAKE_GCLOUD)
  (tmp_path / "states").write_text("".join(f"{word}\n" for word in states))
  (tmp_path / "trainings").write_text("".join(f"{word}\n" for word in trainings))
  done = launch(tmp_path, "tpu_pod", "run", POLL_S="0", **TPU, **variables)
  calls = (tmp_path / "calls").read_text().split()
  assert not list(tmp_path.glob("tmp.*"))
  return done, [call for call in calls if call not in ("describe", "look")]


def test_tpu_pod_goes_on_after_preemptions(tmp_path):
  stopped = "0 stopped by SIGTERM after step 7, and saved: the same command goes on"
  assert "stopped by SIGTERM" in (ROOT / "stemgen_jax/train.py").read_text()
  states = [
    "NOT_FOUND", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE",  # cut off, twice
    "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDING", "SUSPENDED",
    "SUSPENDED", "ACTIVE",  # saved in time
    "SUSPENDED", "SUSPENDED", "FAILED",  # and one that never starts
    "FAILED", "ACTIVE",
  ]  # fmt: skip
  done, calls = follow(tmp_path, states, ["255 cut off", "255 again", stopped, "0 done"])
  assert done.returncode == 0, done.stderr
  begun = ["scp", "ssh", "train", "follow"]
  anew = ["delete", "create"]
  assert calls == ["create", *begun, "follow", *anew, *begun, *anew, *anew, *begun]
  assert "delete" in done.stderr  # a reminder


def test_tpu_pod_ends_when_training_fails(tmp_path):
  done, calls = follow(tmp_path, ["ACTIVE"] * 6, ["9 a mistake"])
  assert done.returncode == 9
  assert calls == ["scp", "ssh", "train", "follow"]
  assert "tpu costs until you give it back" in done.stderr
  assert "a mistake" in done.stdout


HOSTS = """#!/usr/bin/env bash
# One host: runs what it is asked to, in a folder of its own; breaks the first two connections.
case "$*" in
  *' describe '*) echo ACTIVE; exit ;;
esac
for word in "$@"; do if [[ "$word" == --command=* ]]; then command=${word#--command=}; fi; done
cd "$RECORD/host"
if [[ "$command" == *'tail -n +'* && $(wc -l < "$RECORD/broken") -lt 2 ]]; then
  echo broken >> "$RECORD/broken"
  while [[ $(wc -l < stemgen_jax/train.log) -lt $(wc -l < "$RECORD/broken") ]]; do sleep 0.05; done
  timeout 0.5 bash -c "$command"
  touch "stemgen_jax/go$(wc -l < "$RECORD/broken")"
  exit 255
fi
bash -c "$command"
"""
LEARNER = """#!/usr/bin/env bash
echo "one $# $3 it's"
until [[ -e go1 ]]; do sleep 0.05; done
echo two
until [[ -e go2 ]]; do sleep 0.05; done
echo three
exit 7
"""


def test_tpu_pod_follows_a_training_through_broken_connections(tmp_path):
  install(tmp_path, "gcloud", HOSTS)
  home = tmp_path / "host/stemgen_jax"
  (home / ".venv/bin").mkdir(parents=True)
  (home / ".venv/bin/python").write_text(LEARNER)
  (home / ".venv/bin/python").chmod(0o755)
  (tmp_path / "broken").touch()
  done = launch(tmp_path, "tpu_pod", "train", TRAINED[-1], POLL_S="0", **TPU)
  assert done.returncode == 7, done.stderr
  lines = done.stdout.splitlines()
  assert lines == ["one 9 --distributed it's", "two", "three", "training ended with code 7"]
  assert done.stderr.count("the connection broke") == 1
  assert "tpu costs until you give it back: launch/tpu_pod.sh delete" in done.stderr
  again = launch(tmp_path, "tpu_pod", "follow", POLL_S="0", **TPU)
  assert again.returncode == 7
  assert again.stdout == done.stdout


def test_tpu_pod_says_what_goes_on_when_one_leaves(tmp_path):
  install(tmp_path, "gcloud", HOSTS)
  home = tmp_path / "host/stemgen_jax"
  home.mkdir(parents=True)
  (home / "train.log").write_text("one\n")
  (home / "train.pid").write_text(f"{os.getpid()}\n")  # which lives on
  (tmp_path / "broken").write_text("broken\nbroken\n")
  process = subprocess.Popen(
    [ROOT / "launch/tpu_pod.sh", "follow"],
    cwd=ROOT,
    env=environment(tmp_path, **TPU),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  assert process.stdout
  assert process.stdout.readline() == "one\n"
  os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
  _, error = process.communicate(timeout=30)
  assert process.returncode == 130
  assert "launch/tpu_pod.sh follow" in error
  assert "tpu costs until you give it back" in error


def test_tpu_pod_gives_up(tmp_path):
  done, calls = follow(tmp_path, ["FAILED"] * 6, [], RESTARTS="2")
  assert done.returncode == 2
  assert calls == ["delete", "create"] * 2
  assert "RESTARTS=2" in done.stderr


@pytest.mark.parametrize(
  ("says", "code", "requeued"),
  [("stopped by SIGTERM after step 7", 0, True), ("done", 0, False), ("a mistake", 3, False)],
)
def test_a_slurm_job_requeues_itself_until_it_is_done(tmp_path, says, code, requeued):
  install(tmp_path, "srun", f'#!/bin/sh\necho "$@" > {tmp_path}/srun\necho {says}\nexit {code}\n')
  install(tmp_path, "scontrol", f'#!/bin/sh\necho "$@" > {tmp_path}/scontrol\n')
  variables = {"SLURM_JOB_ID": "12", "SLURM_CPUS_PER_TASK": "8"}
  done = launch(tmp_path, "slurm_job", "python", "-m", "x", **variables)
  assert done.returncode == code
  assert says in done.stdout
  assert (tmp_path / "srun").read_text().split()[-4:] == ["--cpus-per-task=8", "python", "-m", "x"]
  assert (tmp_path / "scontrol").exists() == requeued
  if requeued:
    assert (tmp_path / "scontrol").read_text() == "requeue 12\n"
