# make demo   set everything up and run the main job on data made on the spot
# make test   set everything up and run the tests
# make containers  build the image for CPUs and test it; ENGINE, BUILD and BUILD_ARGS choose how
# make slurm-test  start a Slurm of one node and run the tests that need one (slurm-wlm, munge)
# make usage       write docs/usage.md anew, from the parser
# make boutiques   write boutiques.json anew, from the parser
# make locks  write the lock files of the images anew
# make robustness  kill, starve and crowd the command; KILLS and SEED choose how often and when
# make audit  look the locked versions up in the databases of known weaknesses (needs the network)
# make sbom   write docker/sbom-*.json, the bill of materials of the images
# make bench-gpu  measure the network on a GPU, beside the same network with another scan
# make bench  measure preparation, network, whole calls and bookkeeping; results in benchmarks/results/

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
TORCH_INDEX ?= --extra-index-url https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin

.PHONY: demo test fuzz lint robustness audit sbom bench bench-gpu containers slurm-test
.PHONY: usage boutiques locks constraints clean

demo: $(VENV)/installed
	$(BIN)/python -m neurostorm_bids.demo $(DEMO)

test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadscope

# Strangers' files, the long form: 10,000 damaged ones over all readers.
fuzz: $(VENV)/installed-dev
	NEUROSTORM_FUZZ_CASES=10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m robustness tests/robustness -k fuzz --durations=20

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

KILLS ?= 200
SEED ?= 0
robustness: $(VENV)/installed-dev
	NEUROSTORM_KILLS=$(KILLS) NEUROSTORM_SEED=$(SEED) OMP_NUM_THREADS=1 \
	    $(BIN)/python -m pytest -m robustness tests/robustness -s --durations=0

# The suffix +cpu is of PyTorch's own index; the databases know the version without it. --strict: a
# package that they do not answer for is a failure, or silence would pass for safety.
audit: $(VENV)/installed-dev
	for kind in cpu gpu; do \
	    sed -e 's/+cpu / /' -e '/--hash=/d' -e 's/ *\\$$//' docker/requirements-$$kind.txt > audit.txt \
	    && $(BIN)/pip-audit --strict --disable-pip --no-deps --requirement audit.txt || exit 1; \
	done; rm -f audit.txt

sbom: $(VENV)/bin/python
	for kind in cpu gpu; do \
	    $(BIN)/python docker/sbom.py docker/requirements-$$kind.txt > docker/sbom-$$kind.json || exit 1; \
	done

bench: $(VENV)/installed
	$(BIN)/python benchmarks/preparation.py --out benchmarks/results/preparation.json
	$(BIN)/python benchmarks/backbone.py --out benchmarks/results/backbone.json
	$(BIN)/python benchmarks/stages.py --out benchmarks/results/stages.json
	$(BIN)/python benchmarks/scaling.py --out benchmarks/results/scaling.json
	$(BIN)/python benchmarks/participant.py --out benchmarks/results/participant.json
	$(BIN)/python benchmarks/store.py --out benchmarks/results/store.json
	$(BIN)/python benchmarks/bookkeeping.py --out benchmarks/results/bookkeeping.json

bench-gpu: $(VENV)/installed-dev
	$(BIN)/python benchmarks/gpu.py --out benchmarks/results/gpu.json

ENGINE ?= docker
BUILD ?= $(ENGINE) build
RUN ?= $(ENGINE) run
IMAGE ?= neurostorm-bids:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' neurostorm_bids/__init__.py)-cpu
containers: $(VENV)/installed-dev
	$(BIN)/hadolint docker/Dockerfile
	$(BUILD) --file docker/Dockerfile --target cpu --tag $(IMAGE) $(BUILD_ARGS) .
	NEUROSTORM_RUN="$(RUN)" NEUROSTORM_IMAGE=$(IMAGE) \
	    $(BIN)/python -m pytest -m container tests/container

slurm-test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slurm tests/slurm

usage: $(VENV)/installed
	$(BIN)/python docs/usage.py

boutiques: $(VENV)/installed
	$(BIN)/neurostorm --bids-exec-spec > boutiques.new
	mv boutiques.new boutiques.json

# Versions are those of constraints.txt; torch for the CPU has a version of its own.
CPU_TORCH := $(shell sed -n 's/^torch==\(.*\)/torch==\1+cpu/p' constraints.txt)
LOCK := pip compile --quiet --generate-hashes --no-header --no-annotate setup.cfg
locks: $(VENV)/installed
	$(BIN)/python -m pip install --quiet uv
	sed 's/^torch==.*/$(CPU_TORCH)/' constraints.txt > constraints.cpu
	$(BIN)/uv $(LOCK) --constraint constraints.cpu --python-version 3.11 \
	    --python-platform x86_64-manylinux_2_28 $(TORCH_INDEX) --output-file docker/requirements-cpu.txt
	$(BIN)/uv $(LOCK) --constraint constraints.txt --python-version 3.12 \
	    --python-platform x86_64-manylinux_2_28 --output-file docker/requirements-gpu.txt
	rm constraints.cpu

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

KERNELS := setup.py $(wildcard neurostorm_bids/kernels/src/*)
$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt $(KERNELS)
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
