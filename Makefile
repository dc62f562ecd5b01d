# make train [TASK=fetch-reach] [ARGS="--seed 1"]   sets up .venv and trains a policy
# make test                                         sets up .venv with what tests need and runs them

PYTHON ?= python3
TASK ?= fetch-reach
ARGS ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
WORKERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Setting up comes before what uses it.
.NOTPARALLEL:
.PHONY: train test test-slow test-sb3 lint format setup bench clean

train: $(BIN)/.runtime
	$(BIN)/python experiments/train.py $(if $(findstring --resume,$(ARGS)),,$(TASK)) $(ARGS)

test: setup
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-slow: setup
	$(BIN)/python -m pytest $(WORKERS) -m "not gpu" $(ARGS)

# What races and audits Stable-Baselines3; PyTorch takes gigabytes.
test-sb3: setup
	$(INSTALL) '.[dev,sb3]'
	$(BIN)/python -m pytest tests/test_versus_sb3.py tests/her_jax/test_foreign.py $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python benchmarks/env_throughput.py
	$(BIN)/python benchmarks/replay.py

setup: $(BIN)/.development

# Warp, which training without it does not need, takes longest to download and to import.
$(BIN)/.development: $(BIN)/.runtime
	$(INSTALL) '.[dev]'
	@touch $@

$(BIN)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"Python {v[0]}.{v[1]} is too old; run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(INSTALL) .
	@touch $@

clean:
	rm -rf .venv
