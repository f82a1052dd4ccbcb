# make demo   set everything up and run the main job on data made on the spot
# make test   set everything up and run the tests
# make bench  measure preparation and network; results in benchmarks/results/

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin

.PHONY: demo test lint bench constraints clean

demo: $(VENV)/installed
	$(BIN)/python -m neurostorm_bids.demo $(DEMO)

test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python benchmarks/preparation.py --out benchmarks/results/preparation.json
	$(BIN)/python benchmarks/backbone.py --out benchmarks/results/backbone.json
	$(BIN)/python benchmarks/store.py --out benchmarks/results/store.json

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints: $(VENV)/installed-dev
	{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
