# `make demo` and `make test` need Python 3.11 to 3.14, make and pip; they make .venv themselves.
PYTHON ?= python3
PYTHONS := 3.11 3.12 3.13 3.14
VENV := .venv
PY := $(VENV)/bin/python
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
LOCK := requirements/py$(VERSION).txt
READY := $(VENV)/.ready-$(VERSION)

.PHONY: setup demo test test-all lint bench locks clean

setup: $(READY)

$(READY): $(LOCK) requirements/nodeps.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/nodeps.txt
	touch $@

requirements/py%txt:  # of a Python without a lock
	@echo "error: Python must be one of $(PYTHONS); got $$($(PYTHON) -V)." \
	  "Set PYTHON=python3.12." >&2; exit 2

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

# The newest versions that fit setup.py, for each Python. Torch asks for exact versions of its CUDA
# packages itself, and its CPU wheels for none: they are left out.
locks:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade uv
	set -e; for version in $(PYTHONS); do \
	  build/uv/bin/uv pip compile setup.py --extra data --extra hub --extra eval --extra beam \
	    --extra dev --python-version $$version --python-platform linux --no-emit-index-url \
	    --no-annotate --no-header --quiet --upgrade --output-file build/new.txt; \
	  { echo "# Python $$version. Written by \`make locks\` from setup.py, which says what each is for."; \
	    grep -vE '^(nvidia|cuda|triton)\b' build/new.txt; } > requirements/py$$version.txt; \
	done

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
