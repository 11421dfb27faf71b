# Two commands: `make demo` installs what the demo needs and runs it, `make test` installs the rest and runs the tests.
#
# Without a GPU a CPU build of torch is taken where the configured package index has one. If yours has none, it saves
# gigabytes to name one that does:
#   make demo PIP_ARGS="--extra-index-url <index of CPU builds>"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
# setuptools warns of every editable installation; nothing here is at fault.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS)
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
GPU := $(shell nvidia-smi --list-gpus 2>/dev/null)
# The tests of what leans most on other projects.
LEANING := tests/engine tests/models tests/harness

.PHONY: demo test test-slow test-oldest test-newest check format wheel-test clean

demo: $(VENV)/.demo
	$(BIN)/stella-mteb demo

# Two processes, each with whole files, since fixtures of a file are shared: half the time, and 3 GB of memory each.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# The oldest versions that pyproject.toml admits, and the newest of the day; each in an environment of its own.
test-oldest test-newest:
	VENV=$(VENV)-$@ PYTHON=$(PYTHON) PIP_ARGS="$(PIP_ARGS)" tests/versions.sh $(@:test-%=%) $(LEANING)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-test: $(VENV)/.dev
	BIN=$(abspath $(BIN)) PIP_ARGS="$(PIP_ARGS)" tests/wheel.sh

$(VENV)/.torch: constraints.txt
	@echo "Making $(VENV) with torch $(TORCH): 0.2 GB as a CPU build, 2.7 GB with CUDA ..."
	$(PYTHON) -m venv $(VENV)
ifeq ($(GPU),)
	@$(PIP) -c constraints.txt 'torch==$(TORCH)+cpu' 2>/dev/null || { \
		echo "No GPU here, and no CPU build of torch $(TORCH) in the package index: the first lines of Makefile say how"; \
		echo "to name an index that has one. Going on with what there is ..."; \
		$(PIP) -c constraints.txt 'torch==$(TORCH)'; }
else
	$(PIP) -c constraints.txt 'torch===$(TORCH)'
endif
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "Installing what the demo needs: some 60 packages, 0.3 GB; a minute or more ..."
	@$(PIP) --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing what tests and checks need: some 30 packages, 0.2 GB; half a minute or more ..."
	@$(PIP) --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-test-* build dist *.egg-info demo-output
