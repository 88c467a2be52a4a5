# Everything sets itself up: Python >= 3.11 and make are all it takes.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# One worker per core. Set to 0 for one process.
WORKERS ?= logical

.PHONY: help venv demo demo-tasks demo-orders test test-alerts test-brokers test-long model check fmt bench up down clean lock

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## make the virtual environment, if it is not up to date

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Tandem needs Python 3.11 or newer as $(PYTHON); set PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv with ensurepip; on Debian: apt install python3-venv" >&2; exit 2; }
	@rm -f $(STAMP)
	@$(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing requirements.lock"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP) ## run the shop under faults and hold the ledger against it (DATA=file SEED=n SECONDS=n)
	@$(BIN)/tandem demo $(if $(DATA),--data $(DATA)) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

demo-tasks: $(STAMP) ## move the task service from MongoDB to PostgreSQL, the same way (SIZE=n SEED=n SECONDS=n)
	@$(BIN)/tandem demo-tasks $(if $(SIZE),--size $(SIZE)) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

demo-orders: $(STAMP) ## orders across four databases, under faults (SEED=n ORDERS=n STYLE=choreographed|orchestrated DATA=file)
	@$(BIN)/tandem demo-orders $(if $(DATA),--data $(DATA)) $(if $(SEED),--seed $(SEED)) $(if $(ORDERS),--orders $(ORDERS)) $(if $(STYLE),--style $(STYLE))

test: $(STAMP) ## run all tests against real servers, in parallel (ARGS="-k name")
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

# What a broker has to do, and the sagas, over another broker than `make test` takes. In one process: RabbitMQ starts once, in
# five seconds of a processor's own.
BROKER_TESTS := tests/contract/test_transports.py tests/contract/test_transport_outages.py tests/integration/events tests/integration/orders/test_sagas_over_a_broker.py
test-brokers: $(STAMP) ## run what concerns message brokers over RabbitMQ (needs Debian's rabbitmq-server; ARGS="-k name")
	@$(BIN)/python -m pytest -o timeout=300 --broker rabbitmq $(BROKER_TESTS) $(ARGS)

test-alerts: ## test the rules of the alerts; needs promtool (Debian: prometheus)
	@promtool test rules deploy/prometheus/alerts_test.yaml

# Generated schedules: so many of them under each authority.
EXAMPLES ?= 2000
test-long: $(STAMP) ## run the state machine over many generated schedules, others each time (EXAMPLES=n)
	@STATE_MACHINE_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n $(WORKERS) tests/races/test_state_machine.py $(ARGS)

model: ## search the protocol's model through, and each of its mechanisms' absence (ARGS="--jobs 1")
	@$(PYTHON) docs/model/check $(ARGS)

check: $(STAMP) ## lint, format, types, import contracts; changes nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run 'make fmt'" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(STAMP) ## format, and mend what the linter can mend
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure, and write benchmarks/results/latest.json (ONLY=name)
	@$(BIN)/python -c 'import reladiff' 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

up: $(STAMP) ## start the embedded stack and all services, and leave them running
	@$(BIN)/tandem up

down: $(STAMP) ## stop what `make up` started
	@$(BIN)/tandem down

clean: ## stop the stack; remove its data, the caches and the virtual environment
	@if [ -x $(BIN)/tandem ]; then $(BIN)/tandem down --remove; fi
	@rm -rf $(VENV) .tandem .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header
lock: $(STAMP) ## renew requirements.lock, and the image's part of it, from pyproject.toml
	@$(LOCK) --upgrade --extra dev --output-file requirements.lock
	@$(LOCK) --upgrade --extra nats --extra rabbitmq --extra kafka --extra tracing --constraint requirements.lock --output-file deploy/requirements.lock
	@$(LOCK) --upgrade --extra bench --constraint requirements.lock --output-file benchmarks/requirements.lock
