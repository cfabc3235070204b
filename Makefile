# The two commands: make demo, make test. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Everything but the slow proofs, which have commands of their own.
TESTS := -m "not collector and not dashboards and not matrix"
# As many at a time as there are cores, for most tests wait for processes; who is done takes over from who is not.
PARALLEL := -n auto --maxprocesses 8 --dist worksteal
# Of fuzzing: how many targets at a time, and which; all unless some are named, as in make fuzz TARGETS="values arrow".
FUZZ_JOBS ?= $(shell nproc)
TARGETS ?=
LEDGER_MINUTES ?= 0.5
# What depends on the version of Python most: everything that runs in workers and authorities.
CORE := $(addprefix tests/,adapters bridge compatibility instrumentation pool sessions telemetry zero_copy)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-newest proof collector-test prove-dashboards telemetry-proof zero-copy-proof pool-proof transport-proof hostile-proof store-proof prove-ledger fuzz fuzz-short lint types generate dashboards docs audit licences lock bench bench-local instructions peers clean

help: ## Say what there is.
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 24

demo: $(READY) ## Run the main job on real input: sessions, workers, a crash, a leak, and their telemetry.
	$(BIN)/snakepit-otel demo

test: $(READY) ## Run every test but the slow proofs, which have commands of their own.
	$(BIN)/pytest $(PARALLEL) $(TESTS)

test-all: ## Run every test on every Python from 3.11 on that this machine has, each in .venvs/VERSION.
	scripts/test-all $(PARALLEL) $(TESTS)

test-newest: ## Run the core of the tests on the newest of those beside the default one.
	scripts/test-all --newest-other $(PARALLEL) $(TESTS) $(CORE)

proof: $(READY) ## Run the property suites with 2 000 examples each.
	HYPOTHESIS_PROFILE=proof $(BIN)/pytest $(PARALLEL) tests/sessions tests/pool -k propert --timeout 3600

collector-test: $(READY) ## Run a real collector and Prometheus, and read queries by their grammars; needs Go and Node.js the first time.
	scripts/install-collector || [ $$? -eq 69 ]   # 69: there is no Go, and the tests say that they are skipped
	scripts/install-prometheus || [ $$? -eq 69 ]
	scripts/install-grammars || [ $$? -eq 69 ]   # 69: there is no Node.js
	$(BIN)/pytest -m "collector and not dashboards" tests/collector tests/dashboards

prove-dashboards: $(READY) ## Run deployments that are well and some that are not, and see every panel and alert; five minutes.
	scripts/install-collector || [ $$? -eq 69 ]
	scripts/install-prometheus || [ $$? -eq 69 ]
	$(BIN)/pytest -m dashboards tests/dashboards

telemetry-proof: $(READY) ## Prove that no telemetry is lost silently; takes ten minutes.
	$(BIN)/pytest tests/telemetry -m matrix
	$(BIN)/python -m benchmarks.outage --minutes 1 --moods refused mute

zero-copy-proof: $(READY) ## Kill 200 workers and 20 authorities with references in flight; takes three minutes.
	$(BIN)/pytest tests/zero_copy -m matrix

pool-proof: $(READY) ## Kill a hundred workers and twenty authorities under load, overload a pool, let it soak; six minutes.
	$(BIN)/pytest tests/pool -m matrix

transport-proof: $(READY) ## Call containerd's ttrpc, and be called by it; some seconds, once its peer is built with Go.
	scripts/install-ttrpc-peer || [ $$? -eq 69 ]   # 69: there is no Go, and the tests say that they are skipped
	$(BIN)/pytest tests/rpc -m matrix

store-proof: $(READY) ## Let servers of sessions fail in every way, under load: kill them, cut them off, move them; three minutes.
	scripts/install-redis || [ $$? -eq 69 ]   # 69: it takes root and apt-get, and the tests say that they are skipped
	$(BIN)/pytest tests/sessions tests/stores -m matrix

prove-ledger: $(READY) ## Kill six authorities over one store, a server's and a file's, for LEDGER_MINUTES (0.5) each: the ledger stays exact.
	$(BIN)/snakepit-otel prove ledger --cells 6 --kill 6 --minutes $(LEDGER_MINUTES)
	$(BIN)/snakepit-otel prove ledger --cells 6 --kill 6 --minutes $(LEDGER_MINUTES) --file --overflow evict

hostile-proof: $(READY) ## Attack a server that honest callers use, in every way, then in all at once for HOSTILE_MINUTES (10); half an hour.
	$(BIN)/pytest tests/hostile -m matrix

fuzz: $(READY) ## Fuzz every decoder that a peer reaches, ten minutes in all; fails with what reproduces a finding.
	scripts/install-fuzzer || [ $$? -eq 69 ]   # 69: there is none for this machine, and seeds are mutated blindly
	$(BIN)/python -m tests.fuzz --seconds 600 --jobs $(FUZZ_JOBS) $(TARGETS)

fuzz-short: $(READY) ## The same, in a minute or two, with the same inputs every time.
	scripts/install-fuzzer || [ $$? -eq 69 ]
	$(BIN)/python -m tests.fuzz --seconds 240 --runs 500 --jobs $(FUZZ_JOBS) $(TARGETS)

lint: $(READY) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	linter="$$(scripts/install-hadolint)" && "$$linter" examples/docker/Containerfile || [ $$? -eq 69 ]   # 69: it cannot be had

types: $(READY) ## Check types, strictly.
	$(BIN)/mypy

generate: $(READY) ## Generate names, the references of telemetry and commands, the protobuf stubs and the dashboards.
	$(BIN)/python -m semconv.generate
	$(BIN)/python -m semconv.prometheus_names
	scripts/generate-stubs
	$(BIN)/python -m documentation.commands
	$(BIN)/python -m dashboards

dashboards: $(READY) ## Build dashboards, rules and their reference.
	$(BIN)/python -m dashboards

docs: $(READY) ## Build the documentation into site/ (open site/index.html), with broken links as errors; search in it; do the tutorial.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean
	$(BIN)/python -m documentation.questions site/search/search_index.json
	$(BIN)/pytest tests/docs -m matrix

bench: $(READY) ## Measure, and print ratios against baselines of the same run.
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.session_backends
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.framings
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.worker
	$(BIN)/python -m benchmarks.points
	$(BIN)/python -m benchmarks.telemetry
	$(BIN)/python -m benchmarks.hand_over
	$(BIN)/python -m benchmarks.messages
	$(BIN)/python -m benchmarks.instructions
	$(BIN)/python -m benchmarks.pool
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.kill_storm
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.rolling_restart --runs 3
	$(BIN)/python -m benchmarks.instrumented

bench-local: $(READY) ## Measure local calls shortly, and print their table with the goal of each line.
	scripts/install-valgrind || [ $$? -eq 69 ]   # 69: it takes root and apt-get, and no instructions are counted
	$(BIN)/python -m benchmarks.local

instructions: $(READY) ## Count the instructions of a request, and fail where there are 5 % more than benchmarks/instructions.json has.
	scripts/install-valgrind || [ $$? -eq 69 ]   # 69: it takes root and apt-get
	$(BIN)/python -m benchmarks.instructions --check || [ $$? -eq 69 ]   # 69: nothing could be counted or compared

peers: $(READY) ## Measure us against Ray, Celery, dramatiq and bare gRPC, which are installed in the user's cache; ten minutes.
	scripts/install-redis || [ $$? -eq 69 ]   # 69: it takes root and apt-get, and Valkey of the tests takes its place
	$(BIN)/python -m benchmarks.peers --install

audit: $(READY) ## Look for known vulnerabilities, withdrawn and abandoned packages; "Error 69" is for what could not be looked at.
	$(BIN)/python -m supply_chain.audit $(if $(ADVISORIES),--advisories $(ADVISORIES))

licences: $(READY) ## List the licences of all that is installed, built and started.
	$(BIN)/python -m supply_chain.licences

lock: ## Choose the newest versions that pyproject.toml allows, and write them down with their hashes.
	scripts/lock

$(READY): requirements.lock pyproject.toml
	scripts/install $(PYTHON) $(VENV)
	@touch $(READY)

clean: ## Remove what was installed and generated here.
	rm -rf $(VENV) .venvs site .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis
