# `make demo` and `make test` need Python 3.11 or newer, make and pip; they make .venv themselves.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint bench clean

setup: $(READY)

$(READY): requirements.lock requirements-nodeps.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python must be 3.11 or newer; got $$($(PYTHON) -V). Set PYTHON=python3.11." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nodeps.lock
	touch $@

demo: setup
	$(PY) -m data_prep.run_demo --out runs/demo

test: lint
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow"

test-all: lint
	$(PY) -m pytest -n 2 --dist worksteal

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright --pythonpath $(PY) --level error

bench: setup
	$(PY) -m stemgen_jax.bench codec
	$(PY) -m stemgen_jax.bench data
	$(PY) -m stemgen_jax.bench train

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
