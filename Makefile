# Every command of this project; `make help` lists them. The virtual environment makes itself when it is first needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/made
CODE := src tests $(if $(wildcard bench/*.py),bench) $(if $(wildcard demo/*.py),demo)
SEED ?=
STEPS ?= 2000000

# Set, it would have each of the thousands of processes that tests start compile all of idemfs anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check fix test-all crash sim fuzz soak bench docs clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## the whole life of a store and its standby, on real files
	$(BIN)/python -m demo

test: $(STAMP) ## the default tests, 12 to 22 minutes on 2 cores
	$(BIN)/pytest -n 4 --dist worksteal

check: $(STAMP) ## format, lint, types, and the rules in tests/tidy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/pytest -q tests/tidy

fix: $(STAMP) ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-all: $(STAMP) ## every test, the long ones too
	$(BIN)/pytest -n 4 --dist worksteal -m ""

crash: $(STAMP) ## power cuts at every write, and kill -9
	$(BIN)/pytest -n 2 -m "" tests/crash

sim: $(STAMP) ## simulated nodes and faults; SEED=n repeats a run
	$(BIN)/pytest -n 2 -m "" tests/sim $(if $(SEED),--seed=$(SEED))

fuzz: $(STAMP) ## any bytes as stream or record
	$(BIN)/pytest -n 2 -m "" tests/fuzz

soak: $(STAMP) ## two million random steps; STEPS=n, and SEED=n to go on
	$(BIN)/python -m tests.property.soak --steps=$(STEPS) $(if $(SEED),--seed=$(SEED))

bench: $(STAMP) ## the figures to reach, as ratios
	$(BIN)/python -m bench

docs: $(STAMP) ## what the documents say is run and compared
	$(BIN)/pytest -m "" tests/docs

clean: ## remove everything that these commands made
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is the last thing made: an environment whose making was interrupted is made again.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "idemfs: no $(PYTHON) here; install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "idemfs: needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y python3-venv; \
	  else echo "idemfs: Python's venv is missing; as root: apt-get install python3-venv" >&2; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@
