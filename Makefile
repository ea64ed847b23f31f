# Two commands do everything: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := proxy control_plane pillion certs bench tests

.DEFAULT_GOAL := help
.PHONY: help compiled demo test check fmt protos lock clean

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pillion needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing. On Debian or Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "setting up $(VENV) (about a minute, once)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m proxy.compiled || true
	@touch $@

compiled: $(STAMP) ## Compile the request path again, if its source changed
	@$(BIN)/python -m proxy.compiled || true

demo: compiled ## Run a whole mesh on this machine; ARGS="--duration 20 --json" for one JSON report
	@$(BIN)/pillion demo $(ARGS)

test: compiled ## Every check and every test
	@$(MAKE) --no-print-directory check

check: $(STAMP) ## ruff format, ruff, mypy --strict, import-linter, pytest
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)
	@echo "the request path once more, interpreted"
	PILLION_INTERPRETED=1 $(BIN)/python -m pytest -q -n auto --dist loadfile tests/proxy/worker

fmt: $(STAMP) ## Format and fix
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

protos: $(STAMP) ## Regenerate the stubs of the .proto files
	$(BIN)/python -m pillion.v1.generate

lock: $(STAMP) ## Resolve requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --extra dev pyproject.toml -o requirements.lock

clean: ## Remove everything that was generated
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
