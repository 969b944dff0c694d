# The README's commands. `make run` and `make test` need nothing but Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export UV_LINK_MODE ?= copy

.PHONY: run up test soak lint bench clean lock

run: $(STAMP)
	@$(BIN)/greenops run

up: $(STAMP)
	@$(BIN)/greenops up

test: $(STAMP) lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not soak"

soak: $(STAMP)
	$(BIN)/pytest -m soak -s

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --processes 2 dbt/models dbt/tests

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .greenops .pytest_cache .mypy_cache .ruff_cache .hypothesis dbt/target dbt/logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock:
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-strip-extras \
		--no-emit-index-url --python-version 3.11 --quiet --output-file requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@
