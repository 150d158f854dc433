# From nothing (Python 3.10 or later, make) to the main job: both targets make their own virtual environment.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed
ARGS   ?=
CODE   := dfs_ros dfs_research benchmarks tools test launch examples scripts

.PHONY: run test lint docs clean help

help:
	@echo "make run [ARGS='--source stack DIR --duration 20 --output DIR']   camera, depth node and viewer, live"
	@echo "make test                                                      the whole test suite, two files at a time"
	@echo "make lint                                                      ruff, mypy, vermin"
	@echo "make docs                                                      documentation as a site, build/docs/html"

run: $(STAMP)
	@$(VENV)/bin/dfs run $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/vermin --target=3.10- --violations --no-tips --quiet --eval-annotations $(CODE)

docs: $(VENV)/.docs
	$(VENV)/bin/python -m tools.node_pages
	$(VENV)/bin/python -m sphinx -W --keep-going -b html docs build/docs/html

$(VENV)/.docs: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --no-compile -e '.[docs]' -c constraints.txt
	@touch $@

# Python compiles what is imported, once, and for that must be allowed to write; pip would compile all of PyTorch.
unexport PYTHONDONTWRITEBYTECODE

# The CPU build of torch is enough to run everything; a CUDA build that is already there is kept.
$(STAMP): setup.py pyproject.toml
	@echo "== making the virtual environment $(VENV) (a few minutes, once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else "dfs_ros needs Python 3.10 or later, this is %d.%d" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --no-compile -e '.[test]' -c constraints.txt
	@$(VENV)/bin/dfs doctor > /dev/null || true  # imports what is needed
	@touch $(STAMP)
	@echo "== ready"

clean:
	rm -rf $(VENV) build *.egg-info
