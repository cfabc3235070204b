# The two commands: make demo, make test. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test proof lint types generate lock bench clean

help: ## Say what there is.
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 24

demo: $(READY) ## Run the main job on real input: sessions, workers, a crash, a leak, and their telemetry.
	$(BIN)/snakepit-otel demo

test: $(READY) ## Run every test.
	$(BIN)/pytest

proof: $(READY) ## Run the property suites with 2 000 examples each.
	HYPOTHESIS_PROFILE=proof $(BIN)/pytest tests/sessions -k propert --timeout 3600

lint: $(READY) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check types, strictly.
	$(BIN)/mypy

generate: $(READY) ## Generate names, the telemetry reference and the protobuf stubs.
	$(BIN)/python semconv/generate.py
	scripts/generate-stubs

bench: $(READY) ## Measure, and print ratios against baselines of the same run.
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.worker

lock: ## Choose the newest versions that pyproject.toml allows, and write them down with their hashes.
	scripts/lock

$(READY): requirements.lock pyproject.toml
	scripts/install $(PYTHON) $(VENV)
	@touch $(READY)

clean: ## Remove what was installed and generated here.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
