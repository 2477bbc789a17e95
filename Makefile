# `make run` starts the whole system and `make test` runs all tests, from a fresh clone: both first make
# .venv and install what is needed, and do so again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Without compiled bytecode each start of a kernel would compile all its imports again.
PIP := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: run test lint types check audit faults soak server screenshots clean help

help:
	@echo 'make run  [ARGS="--jobs 20 --interval 0.2 --no-dashboards"]   start the whole system'
	@echo 'make test [ARGS="-k stamp"]                                   run the tests'
	@echo 'make lint, make types, make check (both and the tests), make clean'
	@echo 'make audit                                                    look for known flaws in the dependencies; needs the internet'
	@echo 'make faults                                                   all fault tests, deep: half an hour'
	@echo 'make soak [ARGS="--seconds 600"]                                an hour of everything: does anything grow?'
	@echo 'make server [ARGS="FOLDER"]                                   a PostgreSQL from the wheel, for a trial; Ctrl-C stops it'
	@echo 'make screenshots                                              take the pictures of both pages in docs/'
	@echo 'PYTHON=python3.12 chooses the Python (3.11 or newer) that .venv is made with'

run: $(VENV)/installed
	@$(BIN)/python run_all.py $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy

check: lint types test

# What known flaws the installed versions have. It asks a service on the internet, so it is no part of the tests.
audit: $(VENV)/installed-test
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --target $(VENV)/audit pip-audit
	@PYTHONPATH=$(VENV)/audit $(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip || { \
		echo "audit: flaws were found, or the service of known flaws could not be reached: see above"; exit 1; }

faults: $(VENV)/installed-test
	$(BIN)/python -m tests.faults.report $(ARGS)

soak: $(VENV)/installed-test
	$(BIN)/python -m tests.faults.soak $(ARGS)

# A trial without any PostgreSQL on the machine: it prints the address to give to --db.
server: $(VENV)/installed-test
	$(BIN)/python tests/postgresql.py $(ARGS)

screenshots: $(VENV)/installed-test
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "pq needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)"; \
		echo "choose one by: make PYTHON=python3.12 run"; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot make $(VENV): on Debian and Ubuntu the package python3-venv is needed"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing pq into $(VENV); the first time takes a few minutes"
	@$(PIP) -e '.[postgres]'
	@touch $@

$(VENV)/installed-test: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing pq and what its tests need into $(VENV)"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/installed
