# `make demo` and `make test` need Python 3.11 to 3.13, make and a package index; everything else is set up in .venv.

SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.installed
SOURCES := floodwall broker schemas detectors engine streams replay edge drills tests $(wildcard benchmarks)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kafka test lint types imports kernels pytest crash format schemas bench quality lock clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv and install what requirements.lock pins

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); found = sys.version.split()[0]; sys.exit(0 if ok else "Floodwall needs Python 3.11 to 3.13, but $(PYTHON) is " + found + "; name another with: make PYTHON=python3.12")'
	@rm -f $(STAMP)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)  ## a small LLM API, attacked before your eyes and rescued; no Kafka, no root
	$(BIN)/floodwall demo

demo-kafka: $(STAMP)  ## the same through a real broker, workers and, as root, nftables in a namespace; all is gone at the end; needs Java and Maven
	$(BIN)/floodwall demo --kafka

test: $(STAMP)  ## everything that CI runs: lint, types, import layers, tests
	$(MAKE) --no-print-directory --jobs=2 lint types imports kernels
	$(MAKE) --no-print-directory pytest

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP)  ## the direction of imports
	$(BIN)/lint-imports

kernels: $(STAMP)  ## compile what the tests run, once and beside mypy: else each part of them does, at the same time
	$(BIN)/python -m tests.compile_kernels

pytest: $(STAMP)  ## the tests alone, three parts side by side; choose some with ARGS="-k name"
	tests/run_parts $(BIN)/python $(ARGS)

crash: $(STAMP)  ## workers and the broker killed under load, with kept seeds; FLOODWALL_CRASH_KILLS=200 for more
	FLOODWALL_REQUIRE_BROKER=1 $(BIN)/python -m pytest -m crash tests/kafka $(ARGS)

format: $(STAMP)  ## rewrite the sources in the one format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

schemas: $(STAMP)  ## write what docs/ has from the code: schemas, configuration, events, the strengths of drills
	$(BIN)/python -m floodwall.reference docs
	$(BIN)/python -m drills.reference docs/drills.md

bench: $(STAMP)  ## measure, with the data, the count, the median and the spread
	$(BIN)/python -m benchmarks $(ARGS)

quality: $(STAMP)  ## what is found of every attack at every strength, and at whose cost, and the studies of models: a quarter of an hour; ARGS="--days 28" for four quiet weeks
	$(BIN)/python -m drills.quality.study_registrations --out docs/models-registrations.md
	$(BIN)/python -m drills.quality.study_slow
	$(BIN)/python -m drills.quality --out docs/detection-quality.md $(ARGS)
	$(BIN)/python -m drills.quality.study_keys --out docs/models-keys-study.md

LOCK := env -u PIP_FIND_LINKS $(VENV)/lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --no-config --quiet

lock:  ## compile requirements.lock, and what of it the image of the workers needs, again from pyproject.toml
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(LOCK) --all-extras -o requirements.lock
	$(LOCK) --extra kafka --constraint requirements.lock -o deploy/requirements.lock

clean:  ## remove .venv and every cache
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
