# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

REFERENCE := .venv-lp-sparsemap

.PHONY: bench test faults lint lp-sparsemap claims docs bench-mappings bench-steps bench-runner clean

bench: $(READY)
	$(BIN)/python run_bench.py --tasks all --estimators all

# A process for each core, with a thread each.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What takes a run of its own, several times: whole runs that are killed, disks that are full.
faults: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with `make PYTHON=python3.11 ...`")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

# The reference solver of SparseMAP, under a Python 3.8 or 3.9 found on this machine.
lp-sparsemap: $(REFERENCE)/.ready
	@echo "export LP_SPARSEMAP_PYTHON='$(CURDIR)/$(REFERENCE)/bin/python'"

$(REFERENCE)/.ready:
	@for python in python3.9 python3.8 "$$HOME"/.pyenv/versions/3.[89].*/bin/python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 8), (3, 9)))' 2>/dev/null; then \
	        "$$python" -m venv $(REFERENCE) && \
	        $(REFERENCE)/bin/pip install --quiet lp-sparsemap numpy && \
	        touch $@ && exit 0; \
	    fi; \
	done; \
	echo "lp-sparsemap has wheels for Python 3.8 and 3.9 only, and neither is on this machine" >&2; exit 1

# What the quick profile has to show, on what `make bench` left.
claims: bench
	$(BIN)/pytest tests/claims.py

# Tables and figures of README and docs, from the rows in results/reference.
docs: $(READY)
	$(BIN)/python -m analysis.docs

bench-mappings: $(READY)
	$(BIN)/python -m tests.perf.mappings

bench-steps: $(READY)
	$(BIN)/python -m tests.perf.steps

bench-runner: $(READY)
	$(BIN)/python -m tests.perf.runner

clean:
	rm -rf .venv $(REFERENCE)
