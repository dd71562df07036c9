# Two commands need nothing but git, make and Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
LIBRARY := kdopt tests --ignore=tests/test_examples.py \
  README.md docs/index.md docs/choosing.md docs/use_with.md

.PHONY: help demo claims figures test test-lib test-all test-peers lint format bench gpu gpu-distil docs clean
help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The laboratory brings a copy of kdopt, which the second line replaces by a link to this one.
$(VENV)/.kdlab: pyproject.toml examples/kdlab/pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e examples/kdlab
	$(BIN)/python -m pip install --quiet -e '.[examples]'
	@touch $@

$(VENV)/.test: $(VENV)/.kdlab
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.kdlab
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@

demo: $(VENV)/.kdlab  ## distil students on real images with every method (4 minutes)
	$(BIN)/kdlab demo

claims: $(VENV)/.kdlab  ## test what the papers claim, on real digits (20 minutes)
	$(BIN)/kdlab claims

figures: $(VENV)/.kdlab  ## the figures of the papers, from the students of `claims`
	$(BIN)/kdlab figures
	$(BIN)/python -m examples.toy --directory runs/figures/toy --methods \
	  linear pcgrad min_norm "vertex, no simplex" dto_kd famo

test: lint  ## format, lint, types, doctests and tests
	$(PYTEST) -q -n 2 --dist worksteal

test-lib: lint  ## the library alone: its tests, doctests and pages
	$(PYTEST) -q -n 2 --dist worksteal $(LIBRARY)

test-all: lint  ## the same and the slow ones, of programs as users compile them
	KDOPT_TESTS=optimised $(PYTEST) -q -n 2 --dist worksteal -m 'not peers and not aot'

test-peers: $(VENV)/.test  ## compare with TorchJD, PyTorch, Tunix, Keras (installs them)
	$(BIN)/python -m pip install --quiet 'torch>=2.3' 'torchjd[full]>=0.17' \
	  'google-tunix>=0.1.7' 'keras>=3.12'
	$(PYTEST) -q -m peers

lint: $(VENV)/.test  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

format: $(VENV)/.test  ## rewrite what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test  ## benchmarks: ratios to a bound of the same run, then times alone
	$(BIN)/python -m benchmarks --k 2 --methods min_norm dto_kd dot pcgrad upgrad
	$(PYTEST) benchmarks -q -p no:xdist --benchmark-only --ignore-glob "benchmarks/peer_torch*.py"

gpu: $(VENV)/.test  ## the costs on this machine's accelerator, and whether it is right
	$(BIN)/python -m benchmarks.accelerator

gpu-distil: $(VENV)/.kdlab  ## distil eight students of each method on an accelerator
	$(BIN)/python -m benchmarks.distil

docs: $(VENV)/.docs  ## build the site into docs/_build; no page loads from the network
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build
	@! grep -rnE '<(script|link|img)[^>]+(src|href)="(https?:)?//' --include=*.html docs/_build

clean:  ## remove everything that can be made again
	rm -rf $(VENV) runs docs/_build .pytest_cache .ruff_cache
