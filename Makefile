# make demo | test | setup | lab | train-default | bench | lint | clean.  `.venv` is made on first use and kept until
# pyproject.toml or constraints.txt changes.  Another interpreter: make demo PYTHON=python3.12
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
FULL := $(VENV)/.full-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# The first interpreter that runs, is new enough and can make virtual environments.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test setup lab train-default bench lint clean

demo: $(CORE)
	$(BIN)/vtoonify demo

test: $(FULL)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

setup: $(FULL)

lab: $(FULL)
	$(BIN)/jupyter lab notebooks

train-default: $(FULL)
	$(BIN)/python -m vtoonify_lib.training.default

bench: $(CORE)
	$(BIN)/vtoonify bench

lint: $(FULL)
	$(BIN)/ruff check .

clean:
	rm -rf out .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 with venv was found; install one or name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the command line needs: no Jupyter, no widgets, no renderer.
$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[dlib]"
	@touch $@

$(FULL): $(CORE)
	$(PIP) -e ".[local,test]"
	@touch $@
