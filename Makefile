# Two commands start here: `make quickstart` and `make test`. Both set up .venv first (Python >= 3.11 and make suffice).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Measured: on shared cores, more than one thread for BLAS, torch and numba costs more than it gives.
export OMP_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1

.PHONY: help setup quickstart test lint types imports pytest benchmarks clean
.DEFAULT_GOAL := help

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.complete ## create .venv with what constraints.txt pins

$(VENV)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lepton_rl needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

# A new folder each time: nothing that is in runs/ is touched.
quickstart: RUN := runs/make-quickstart-$(shell date +%Y%m%d-%H%M%S)
quickstart: setup ## train a small agent, compare it with the heuristics, write a report (about 5 minutes)
	@$(BIN)/lepton-rl train configs/train/quickstart.yaml --out $(RUN)
	@$(BIN)/lepton-rl benchmark configs/benchmark/quickstart.yaml 'policies.+={name: $(RUN), label: quickstart}' --out $(RUN)

test: setup lint types imports pytest ## run every check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# A file of tests stays with one worker: its fixtures are made once. Half of the time is waiting for real processes.
WORKERS ?= 2
pytest: setup
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

benchmarks: setup ## measure speed (docs/performance.md)
	$(BIN)/python -m benchmarks

clean: ## remove .venv, caches and build products (runs/ stays)
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
