# Everything runs from a fresh checkout with Python (3.11 or newer) and make.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo_digits
# Tested versions; `make test CONSTRAINTS=` takes the newest ones instead.
CONSTRAINTS ?= constraints.txt

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet \
  --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS))
# Each worker has a run of files, whose tests share what they compute, until it
# takes over half of what another one has left.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 \
  --dist worksteal

ACCELERATORS ?= $(VENV)-accelerators
WHEELS := jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 libtpu==0.0.42.1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo docs test slow test-all test-accelerators lint types format \
  clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

demo: $(VENV)/installed ## compare plain training, KD and GPD on digits (RUN=folder)
	$(BIN)/jaxkd train demo_digits --workdir=$(RUN)

docs: $(VENV)/installed-docs ## build the documentation site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: lint types ## check the format, the lint rules and the types; run the tests
	$(PYTEST) -m 'not slow'

slow: $(VENV)/installed-dev ## run the tests that `make test` leaves out
	$(PYTEST) -m slow
	$(MAKE) test-accelerators

test-all: lint types ## check as `make test` does; run all tests
	$(PYTEST)
	$(MAKE) test-accelerators

# The compilers of accelerators, without which their programs cannot be looked
# at; no accelerator. Elsewhere than in $(VENV), whose JAX would look for one.
# One process: each program is compiled once for all tests.
test-accelerators: ## compile training for H100 and TPU v5e; check the programs
	@if $(MAKE) --no-print-directory $(ACCELERATORS)/installed; then \
	  JAX_PLATFORMS=cpu XLA_FLAGS= $(ACCELERATORS)/bin/python -m pytest -rs \
	  tests/test_accelerators.py; \
	else \
	  echo 'skipped: the wheels that compile for accelerators cannot be' \
	  'installed here ($(WHEELS))'; \
	fi

lint: $(VENV)/installed-dev ## check the format and the lint rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/installed-dev ## check the types
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/installed-dev ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove caches and build files; the environment and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 \
	  | xargs -0 rm -rf

# Stamps: newer than the files that say what to install, or the rule runs again.
$(VENV)/installed: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/installed $@

$(VENV)/installed-docs: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $(VENV)/installed $@

$(ACCELERATORS)/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(ACCELERATORS)
	$(ACCELERATORS)/bin/python -m pip install --quiet \
	  --disable-pip-version-check --constraint constraints.txt \
	  --editable . pytest pytest-xdist hypothesis
	$(ACCELERATORS)/bin/python -m pip install --quiet \
	  --disable-pip-version-check --no-deps $(WHEELS)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'jaxkd needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || \
	  { echo 'this Python cannot make environments (no ensurepip). On Debian' \
	  'and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
