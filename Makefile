# make demo    sets everything up and shows the main job, from data to a measured model
# make test    sets everything up and runs the tests
# make help    the other targets
#
# Torch is installed first and alone, so that its build is chosen here: on a machine with an NVIDIA
# card, or where pip is set up with package sources of its own, the one that pip finds; elsewhere the
# small CPU build. TORCH and TORCH_FLAGS choose another.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
CPU_BUILD := --index-url https://download.pytorch.org/whl/cpu
TORCH_FLAGS ?= $(shell command -v nvidia-smi >/dev/null || \
	$(PYTHON) -m pip config list 2>&1 | grep -cE 'find-links|index-url' >/dev/null || echo "$(CPU_BUILD)")

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: help demo test lint types faults clients bench bench-train clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: .venv/.installed ## tune the embedded model on real data and measure it
	$(BIN)/tunesmith demo

test: .venv/.installed-dev ## unit, contract and integration tests
	$(BIN)/python -m pytest --ignore=tests/faults

faults: .venv/.installed-dev ## kill processes at random while jobs run; nothing may be lost
	$(BIN)/python -m pytest tests/faults

lint: .venv/.installed-dev ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev ## strict types
	$(BIN)/mypy

clients: .venv/.installed-dev ## every supported client version, against a real server
	$(BIN)/python -m tests.clients

bench: .venv/.installed-dev ## seconds from jobs.create to the tuned model's first answer
	$(BIN)/python bench/job_latency.py

bench-train: .venv/.installed-dev ## training against other trainers; TRL=python of its environment
	$(BIN)/python bench/train.py $(if $(TRL),--trl $(TRL))

clean: ## remove what the targets made
	rm -rf .venv .clients tunesmith-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp per stage: a second run is instant, a changed pyproject.toml installs again.
.venv/.torch:
	@echo "Setting up .venv: torch first, a minute or more the first time"
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH_FLAGS) "$(TORCH)"
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml
	$(PIP) -e ".[torch]"
	@touch $@

.venv/.installed-dev: .venv/.torch pyproject.toml
	$(PIP) -e ".[dev]"
	@touch $@ .venv/.installed
