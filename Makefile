# Two commands: `make demo` and `make test`. The environment is made by whichever comes first.
#
# On a machine without a GPU, a CPU build of torch saves gigabytes: name an index that has it,
#   make demo PIP_ARGS="--extra-index-url <index of CPU builds>"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow check format wheel-test clean

demo: $(READY)
	$(BIN)/stella-mteb demo

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-test: $(READY)
	BIN=$(abspath $(BIN)) PIP_ARGS="$(PIP_ARGS)" tests/wheel.sh

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# setuptools warns of every editable installation; nothing here is at fault.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output
