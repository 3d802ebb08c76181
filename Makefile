# Everything works from a fresh clone; each install step leaves a stamp in .venv and is skipped the next time.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

N ?= 100

.PHONY: demo app test test-full check lint chaos bench screenshots clean

demo: .venv/train  ## train on a preference file that ships with the package, and print what changed
	$(BIN)/dpo-hub demo

app: .venv/app  ## the app at http://127.0.0.1:7860
	$(BIN)/python app.py

# A file's tests share what they train. Files begin in their own order; by default those with few tests, often the
# longest, would come last.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

test: .venv/test .venv/chromium  ## what a change may break, in one process per core with one thread each
	$(PYTEST) -m "not full"

test-full: .venv/test .venv/chromium  ## all tests: also a real model, kills by the dozen, every fault, every screen
	$(PYTEST)

check: lint test-full  ## what CI runs

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

chaos: .venv/test  ## kill the processes of training runs N times and see that nothing is lost: make chaos N=100
	$(BIN)/python -m tests.chaos.chaos $(N)

bench: .venv/bench .venv/test .venv/chromium  ## training, reading, the doctor and dialects beside others, the app, all demos
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/runs.py
	$(BIN)/python benchmarks/duet.py
	$(BIN)/python benchmarks/rounds.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/reading.py --hostile
	$(BIN)/python benchmarks/doctor.py
	$(BIN)/python benchmarks/dialects.py
	$(BIN)/python benchmarks/app.py
	$(BIN)/dpo-hub demo --all

screenshots: .venv/test .venv/chromium  ## the pictures of the app in docs/screenshots, taken anew
	$(BIN)/python scripts/screenshots.py

.venv/bin/python:
	@echo "Making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv

.venv/train .venv/app .venv/test .venv/bench: .venv/%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing dpo_hub[$*] and what it needs into .venv (a few minutes the first time)"
	$(PIP) install --constraint constraints.txt --editable '.[$*]'
	@touch $@

.venv/chromium: scripts/ensure_chromium.sh | .venv/test
	@PYTHON="$(CURDIR)/$(BIN)/python" scripts/ensure_chromium.sh
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
