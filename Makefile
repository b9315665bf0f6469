# The words of this project: `make help` lists them.
PYTHON ?= python3
RUN := .venv/bin/python
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench docs requirements clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything pinned (Python 3.11)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --no-deps --editable .
	@touch $(STAMP)

demo: setup ## walk every station on the recorded Google 2019 series; the last line is the report's path
	$(RUN) -m experiments.demo

test: setup ## all tests
	$(RUN) -m pytest --numprocesses 2 --dist loadfile

check: setup ## style, types, layers
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright
	.venv/bin/lint-imports

bench: setup ## measurements against their floors (slow)
	$(RUN) -m pytest -m bench --override-ini addopts="--import-mode=importlib --strict-markers" -s tests/bench

docs: setup ## regenerate docs/data.md and the README's pictures
	$(RUN) -m experiments.docs

requirements: setup ## pin what is installed now
	{ grep '^#' requirements.txt; echo torch==2.13.0; $(RUN) -m pip freeze --exclude-editable | grep -v '^torch=='; } > requirements.tmp
	mv requirements.tmp requirements.txt

clean: ## remove runs and caches, keep .venv
	rm -rf runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache
