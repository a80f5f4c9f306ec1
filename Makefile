# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.installed-docs
LOG    := $(VENV)/install.log
TRL112 := $(VENV)-trl112
SCHEMATHESIS := $(VENV)-schemathesis
LC     := $(VENV)-lc
# Tests run in this many processes (0: in one, as a debugger wants it).
JOBS   ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
PYTEST_ARGS ?=

export HF_HUB_DISABLE_TELEMETRY = 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := setup
.PHONY: help setup model demo test test-all test-langchain reliability check bench bench-ppo bench-peers docs docs-serve architecture constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) model  ## create .venv and install the package with its development tools, and the model smol
	@echo "Ready. Try: $(BIN)/jade demo"

model: $(STAMP)  ## add the model smol to .jade (fetches 93 MB, once)
	@[ -f "$${JADE_DATA_DIR:-.jade}/models/smol/jade.json" ] || \
	  { echo "adding the model smol (fetches 93 MB, once; about a minute)"; \
	    $(BIN)/jade models add smol --quiet >$(VENV)/model.log 2>&1 || \
	    echo "smol could not be added (no network?); all else works. Later: jade models add smol"; }

demo: $(STAMP) model  ## build a small world, ask it held-out questions, print the results
	@$(BIN)/jade demo

test: $(STAMP) model  ## run the tests
	@$(PYTEST) $(PYTEST_ARGS)

test-all: $(STAMP) test-langchain $(SCHEMATHESIS)/.installed  ## run the tests, the slow ones and LangChain's own too
	@$(PYTEST) -m "slow or not slow" $(PYTEST_ARGS)
	@$(BIN)/python tests/reliability --scale 0.1

reliability: $(STAMP)  ## count what docs/reliability.md promises, in full (hours; goes on where it stopped)
	@$(BIN)/python tests/reliability --json > .reliability.json || { cat .reliability.json; exit 1; }
	@cat .reliability.json

test-langchain: $(LC)/.installed  ## LangChain's standard tests and langgraph dev, in an environment of their own
	@$(LC)/bin/python -m pytest -rs -m "slow or not slow" --benchmark-disable --junitxml $(LC)/report.xml \
	  tests/jade_graph/langchain/test_standard.py tests/jade_graph/langchain/test_dev_server.py

$(LC)/.installed: pyproject.toml constraints.txt
	@echo "installing langchain-tests and langgraph-cli into $(LC) (2-4 minutes; the log is $(LC)/install.log)"
	@$(PYTHON) -m venv $(LC)
	@grep -E '^(torch|hypothesis|langchain|langchain-core|langgraph|transformers)==' constraints.txt > $(LC)/pins.txt
	@$(LC)/bin/python -m pip --disable-pip-version-check install -c $(LC)/pins.txt -e . \
	  "langchain-tests>=1.1" "langgraph-cli[inmem]>=0.4" langchain pytest pytest-asyncio hypothesis \
	  > $(LC)/install.log 2>&1 || { tail -n 30 $(LC)/install.log >&2; exit 1; }
	@touch $@

check: $(STAMP)  ## format, lint, types, import rules, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(PYTEST) $(PYTEST_ARGS)

bench: $(STAMP)  ## run every benchmark and print its figures
	@$(BIN)/jade bench --all

bench-peers: $(STAMP)  ## generation beside llama.cpp and vLLM on the same model and prompts (4 GB, in .peers)
	@BIN=$(abspath $(BIN)) benchmarks/peers.sh

bench-ppo: $(STAMP) $(TRL112)/.installed  ## compare our PPO arithmetic with TRL 1.12.0's, in an environment of its own
	@$(BIN)/python benchmarks/bench_ppo.py batch $(TRL112)/batch.npz
	@TRL_EXPERIMENTAL_SILENCE=1 $(TRL112)/bin/python benchmarks/bench_ppo.py trl $(TRL112)/batch.npz $(TRL112)/theirs.npz
	@$(BIN)/python benchmarks/bench_ppo.py compare $(TRL112)/batch.npz $(TRL112)/theirs.npz

$(TRL112)/.installed: constraints.txt
	@echo "installing trl 1.12.0 into $(TRL112) (1-2 minutes; the log is $(TRL112)/install.log)"
	@$(PYTHON) -m venv $(TRL112)
	@grep '^torch==' constraints.txt > $(TRL112)/torch.txt
	@$(TRL112)/bin/python -m pip --disable-pip-version-check install -c $(TRL112)/torch.txt torch trl==1.12.0 \
	  > $(TRL112)/install.log 2>&1 || { tail -n 30 $(TRL112)/install.log >&2; exit 1; }
	@touch $@

$(SCHEMATHESIS)/.installed:
	@echo "installing schemathesis into $(SCHEMATHESIS) (its pins differ from ours; the log is in it)"
	@$(PYTHON) -m venv $(SCHEMATHESIS)
	@$(SCHEMATHESIS)/bin/python -m pip --disable-pip-version-check install schemathesis==4.32.5 \
	  > $(SCHEMATHESIS)/install.log 2>&1 || { tail -n 30 $(SCHEMATHESIS)/install.log >&2; exit 1; }
	@touch $@

docs: $(DOCS)  ## build the site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Built: site/index.html"

docs-serve: $(DOCS)  ## serve the site while writing it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

constraints: $(STAMP)  ## write the versions in .venv to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/'; } > constraints.new
	@mv constraints.new constraints.txt

architecture: $(STAMP)  ## draw the pictures of the rooms anew, from the imports; list circles and imports upwards
	@$(BIN)/python tools/house.py --write

clean:  ## remove what was built (not .venv, not .jade)
	@rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing (3-9 minutes the first time; the log is $(LOG))"
	@$(PIP) install -c constraints.txt -e ".[dev]" > $(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; exit 1; }
	@touch $@

$(DOCS): $(STAMP)
	@echo "installing the documentation tools"
	@$(PIP) install -c constraints.txt -e ".[dev,docs]" > $(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; exit 1; }
	@touch $@
