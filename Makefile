# Everything a fresh machine needs is Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
# What starts graphs is with one worker, one at a time; the other runs the rest meanwhile (tests/workers.py).
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
# By content, not by time: a clone, or a second start, installs nothing that is already there.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: setup programs demo test check prove bench soak load-test lock

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SignalGraph needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo "Setting up $(VENV): $$(grep -c '==' requirements.lock) packages, about 2.5 GB on disk, 6 GB where pip brings torch with CUDA; once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@rm -f $(VENV)/.installed-* && touch $@

demo: setup  ## run the A/B graph and replay real bars through it (ARGS=--exit to stop afterwards)
	@$(BIN)/signalgraph demo $(ARGS)

programs: setup  # what tests start: on CI, what is missing is installed
	@$(BIN)/python -m tests.programs

test: programs  ## every test, at sizes that fit CI
	$(PYTEST) $(ARGS)

prove: programs  ## the same tests at full sizes
	SIGNALGRAPH_PROVE=1 $(PYTEST) $(ARGS)

check: setup  ## formatting, lint, types, import rules, configurations, bundles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/signalgraph config check configs/*.yaml
	$(BIN)/signalgraph bundle verify models/v1.0
	$(BIN)/signalgraph bundle verify models/v1.1

bench: setup  ## peers, ourselves and the ceilings on the same work, in one run (about 50 minutes; needs wrk)
	$(BIN)/python -m benchmarks $(ARGS)

soak: setup  ## ten minutes of steady load: does any process grow (needs wrk)
	$(BIN)/python -m benchmarks.soak $(ARGS)

load-test: setup  ## ramp users up and down against configs/autoscale_demo.yaml, and draw how the graph follows
	$(BIN)/python -m benchmarks.load_test $(ARGS)

lock:  ## pin what pyproject.toml resolves to today
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet torch==2.13.0 && .lock/bin/pip install --quiet --editable '.[dev]'
	.lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	rm -rf .lock
