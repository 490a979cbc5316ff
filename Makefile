# Each target does its own set-up from a fresh clone: Python >= 3.11 and make are all it takes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench growth test-cuda bench-cuda goals clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## train a small classifier on noisy labels, dump its predictions, say and show what moved the loss
	$(BIN)/fastdiv demo -o demo-run

test: $(VENV)/.test ## run the tests; PYTEST_ARGS are passed on
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.check ## lint, formatting, types, and the rules of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

bench: $(VENV)/.bench ## measure beside the peers; writes benchmarks/results/ and the tables of the README
	$(BIN)/python -m benchmarks

growth: $(VENV)/.bench ## measure whether time and memory stay in step up to 1,000 million rows
	$(BIN)/python -m benchmarks.growth

test-cuda: $(VENV)/.test-cuda ## pass the kernels' tests on a GPU, and again under compute-sanitizer where that is there
	PYTHON=$(BIN)/python .ci/gpu test sanitize

bench-cuda: $(VENV)/.bench-cuda ## measure on a GPU beside its memory and its peers; writes benchmarks/results/
	PYTHON=$(BIN)/python .ci/gpu bench

goals: $(VENV)/.bench ## print what speed is aimed at, beside what was measured last
	$(BIN)/python -m benchmarks --goals

clean: ## remove what these targets made
	rm -rf $(VENV) demo-run .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastdiv needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras, made again when the requirements change.
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@
