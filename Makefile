# Everything works from a fresh clone; each install step leaves a stamp in .venv and is skipped the next time.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo app test check lint bench clean

demo: .venv/train  ## train on a preference file that ships with the package, and print what changed
	$(BIN)/dpo-hub demo

app: .venv/app  ## the app at http://127.0.0.1:7860
	$(BIN)/python app.py

test: .venv/test .venv/chromium  ## all tests
	$(BIN)/python -m pytest

check: lint test  ## what CI runs

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/train  ## all five demo applications, timed
	$(BIN)/dpo-hub demo --all

.venv/bin/python:
	@echo "Making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv

.venv/train .venv/app .venv/test: .venv/%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing dpo_hub[$*] and what it needs into .venv (a few minutes the first time)"
	$(PIP) install --constraint constraints.txt --editable '.[$*]'
	@touch $@

.venv/chromium: scripts/ensure_chromium.sh | .venv/test
	@PYTHON="$(CURDIR)/$(BIN)/python" scripts/ensure_chromium.sh
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
