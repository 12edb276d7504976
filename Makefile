# Everything runs in .venv, made by python3 and pip alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= default
SECONDS ?= 600

.PHONY: demo test check bench load soak docs clean

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.bench: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

demo: $(VENV)/.run  ## the main job, the plain way and through penstock, side by side
	$(BIN)/penstock demo

bench: $(VENV)/.bench  ## every benchmark; ARGS="--list" shows them
	$(BIN)/penstock bench $(ARGS)

test: $(VENV)/.dev  ## every test but the long ones, with branch coverage
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --cov --cov-report=term -m "not load" $(ARGS)

check: $(VENV)/.dev  ## style, types, layers and the quick tests: before every commit
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto -q -m "not load" $(ARGS)

load: $(VENV)/.dev  ## the long tests: load, memory, leaks
	$(BIN)/pytest -m load --timeout 900 $(ARGS)

soak: $(VENV)/.dev  ## both transports under load, cuts and restarts for SECONDS: nothing grows, nothing is lost
	PYTHONPATH=tests $(BIN)/python tests/load/soak.py $(SECONDS)

docs: $(VENV)/.docs  ## the documentation site, in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
