# Every target sets up what it needs: .venv holds the pinned packages and is remade when the pins change. It is made by
# uv where that is installed, else by a Python from 3.11 to 3.14 (.ci/find-python; PYTHON=... says which). VENV=... is
# another place for it, PINS=... another file of pins.
MODEL   ?= r50
PROFILE ?= demo
METHODS ?=
TASKS   ?=
SEEDS   ?=
RUNS    ?= runs
DATA    ?=
IMAGENET ?=
COCO    ?=
ADE20K  ?=
OPTIONS ?=
PYTHON  ?=
PYTEST  ?= -n 2 --dist loadfile -rs -m "not slurm"
PIP     ?= -q --disable-pip-version-check
EXTRAS  := .[analysis,segmentation,slurm,docs,dev]
VENV    ?= .venv
PINS    ?= constraints.txt
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.complete
# What depends on the Python: its own grammar and library, processes, signals, typing read at run time, the packages' wheels.
NEWEST  ?= tests/test_help.py tests/test_make.py tests/test_package.py tests/test_python.py tests/engine tests/run \
           tests/faults/test_checkpoint_faults.py tests/faults/test_signal_faults.py tests/pretrain/test_config.py \
           tests/classification/test_train.py tests/results/test_collect.py tests/results/test_table_files.py

.DEFAULT_GOAL := help
.PHONY: help setup benchmark demo-data verify-data throughput wheelhouse tables docs test test-docs test-newest test-lowest \
        test-slurm test-browser format check clean

help: ## print the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make the environment (.venv) with the pinned packages

$(STAMP): $(PINS) pyproject.toml
	@rm -f $(STAMP)
	@if command -v uv >/dev/null; then \
	  echo "installing the pinned packages into $(VENV) with uv (a minute the first time)"; \
	  python=$$(.ci/find-python $(PYTHON) 2>/dev/null || echo $(or $(PYTHON),3.11)); \
	  { test -x $(BIN)/python || uv venv -q --seed --python $$python $(VENV); } && \
	  uv pip install -q --python $(BIN)/python -c $(PINS) -e "$(EXTRAS)"; \
	else \
	  python=$$(.ci/find-python $(PYTHON)) || exit 2; \
	  echo "installing the pinned packages into $(VENV) with $$python (two to three minutes the first time)"; \
	  { test -x $(BIN)/python || $$python -m venv $(VENV); } && \
	  $(BIN)/python -m pip install $(PIP) -c $(PINS) -e "$(EXTRAS)"; \
	fi
	@touch $(STAMP)

benchmark: $(STAMP) ## pre-train and fine-tune MODEL with every method beside training from scratch, print the table
	@$(BIN)/python -m benchmarks run --model $(MODEL) --profile $(PROFILE) $(if $(METHODS),--methods $(METHODS)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  --runs-dir $(RUNS) $(if $(TASKS),--tasks $(TASKS)) $(if $(DATA),--data $(DATA)) $(if $(IMAGENET),--imagenet $(IMAGENET)) \
	  $(if $(COCO),--coco $(COCO)) $(if $(ADE20K),--ade20k $(ADE20K)) $(OPTIONS)

demo-data: $(STAMP) ## write the generated scenes to DATA (default data/demo)
	@$(BIN)/python -m benchmarks demo-data $(or $(DATA),data/demo)

verify-data: $(STAMP) ## decode every image under DATA and list the bad ones
	@$(BIN)/python -m engine.verify $(DATA)

throughput: $(STAMP) ## measure steps, precision and loader; writes benchmarks/speed/measured/
	@$(BIN)/python -m benchmarks throughput

wheelhouse: $(STAMP) ## fetch what benchmarks/speed/gpu.sh needs beside torch and timm, for a machine without network
	@$(BIN)/python benchmarks/speed/wheels.py download wheelhouse

tables: $(STAMP) ## write every table, figure and the page from RUNS
	@$(BIN)/python -m results all $(RUNS)

docs: $(STAMP) ## write the documentation as a site, site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict && echo "written: site/index.html"

test: $(STAMP) ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

test-newest: $(STAMP) ## run what depends on the Python on the newest that is found, if .venv has another
	@newest=$$(.ci/find-python --newest) || exit 2; ask='import sys; print("%d.%d" % sys.version_info[:2])'; \
	version=$$($$newest -c "$$ask"); \
	if [ "$$version" = "$$($(BIN)/python -c "$$ask")" ]; then \
	  echo "the newest Python found here is $$version, that of $(VENV): nothing more to test"; \
	else \
	  $(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON=$$newest PYTEST='$(PYTEST) $(NEWEST)'; \
	fi

test-lowest: ## run the tests with the lowest versions that pyproject.toml allows
	@python=$$(.ci/find-python $(PYTHON)) && $$python .ci/lower-bounds .venv-lowest.txt && \
	$(MAKE) --no-print-directory test VENV=.venv-lowest PINS=.venv-lowest.txt PYTHON=$$python

test-slurm: $(STAMP) ## run the Slurm tests on a Slurm of their own; installs Debian's as root
	@command -v slurmctld >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	  apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends \
	  slurmctld slurmd slurm-client munge >/dev/null; } || echo "Slurm cannot be installed here: its tests are skipped"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST) tests/slurm -m slurm -rs

test-browser: $(STAMP) ## run the page's tests in a headless Chromium; installs Debian's as root
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends chromium >/dev/null; } || \
	  echo "Chromium cannot be installed here: its tests are skipped"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/results/test_report_browser.py

test-docs: $(STAMP) ## carry out every command of README and docs, made small, alone; three minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/docs

format: $(STAMP) ## format the code and apply the linter's safe fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: $(STAMP) ## what CI runs: format, lint, types, tests
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

clean: ## remove the environment and caches (never runs or data)
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache
