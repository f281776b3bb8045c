# `make demo` and `make test` do everything on a machine with make and Python >= 3.10.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test lint docs clean
help:
	@echo "make demo   set up, then see everything at work in minutes: detector, probes, tracking, words, features"
	@echo "make test   set up, check style and run the tests"
	@echo "make docs   set up and build the site of the documentation in work_dirs/site"
	@echo "make setup  virtual environment $(VENV) with everything in it"
	@echo "make clean  remove $(VENV), the generated data and work_dirs/demo"

setup: $(READY)
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pe_dense needs Python >= 3.10, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	# SAM 2 is built by the PyTorch that is there now; in isolation it would fetch a second one.
	SAM2_BUILD_CUDA=0 $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[distill]'
	# Two builds of OpenCV come with the dependencies; the one that needs no graphics libraries must be the one in use.
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --force-reinstall opencv-python-headless
	touch $@

DEMO := work_dirs/demo
demo: $(READY)
	$(BIN)/python tools/demo.py --out $(DEMO)

test: $(READY) lint
	# A process per core, four at most, with one thread each; a file's tests stay together, since they share fixtures.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) data/shapes data/shapes_video_demo $(DEMO)
