# make bench            environment + the quick grid + its figures, tables and page
# make bench GRID=paper the same for experiments/paper.toml
GRID    ?= quick
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

.PHONY: help env bench figures study test test-faults benchmark check lint docs clean

help:
	@echo "make bench [GRID=quick]    install, run the grid, draw its figures and tables, and its page"
	@echo "make figures [GRID=quick]  redraw them from the stored results"
	@echo "make study                 redraw the reference study and its page, docs/study.md"
	@echo "make test                  install and run the tests"
	@echo "make check                 run the check grid afresh and compare it with its reference results"
	@echo "make test-faults           the long fault tests, some minutes"
	@echo "make benchmark [SOURCE=..]  measure scoring, training, masks and reports against the usual ways"
	@echo "make lint                  ruff and mypy"
	@echo "make docs                  build the documentation into site/, links checked"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; found: $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,dev]'
	@touch $@

# Two processes of one thread finish a quick grid sooner than one process of two threads.
WORKERS ?= $(if $(filter quick heads-quick,$(GRID)),--workers 2 --threads 1)
# The page goes beside the figures, to the folder of the grid's name: its file's unless the file gives one.
GIVEN   := $(if $(filter %.toml,$(GRID)),$(shell sed -n 's/^name *= *"\(.*\)".*/\1/p' $(GRID)))
NAME    := $(or $(GIVEN),$(patsubst %.toml,%,$(notdir $(GRID))))
bench: env
	$(BIN)/shrinkbench-bert run $(GRID) $(WORKERS)
	$(BIN)/shrinkbench-bert report $(GRID)
	$(BIN)/shrinkbench-bert report $(GRID) --html plots/$(NAME)/report.html

figures: env
	$(BIN)/shrinkbench-bert report $(GRID)

# From the committed results alone.
study: env
	for grid in study glue-minilm cola-by-accuracy; do \
		$(BIN)/shrinkbench-bert report $$grid --results results/reference --plots plots/reference || exit; done
	$(BIN)/shrinkbench-bert study results/reference/study results/reference/glue-minilm \
		--one-batch results/reference/study-one-batch --plots plots/reference --page docs/study.md

# One process per core, each with one thread of torch; the tests of a file share its fixtures.
test: env
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

check: env
	@results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT INT TERM && \
		$(BIN)/shrinkbench-bert run check --results "$$results" && \
		$(BIN)/shrinkbench-bert compare results/reference/check "$$results" --fail-on-improvement

# Every kill, full disk and lost worker of docs/robustness.md, as often as it says.
test-faults: env
	$(BIN)/pytest -m 'faults or not faults' tests/test_faults.py tests/test_executors.py tests/test_fuzz.py

# Ratios on this machine; let nothing else run meanwhile. SOURCE: a folder or hub id with SST-2.
SOURCE  ?= mini-glue
benchmark: env
	$(BIN)/python tests/benchmarks/run.py --source $(SOURCE)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages keep the paths that they have in the repository, so that their links hold in both places.
docs: env
	rm -rf build/docs site
	mkdir -p build/docs/plots
	cp -R README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs build/docs
	cp -R plots/reference build/docs/plots
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf $(VENV) build/docs site
