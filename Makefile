# Everything is installed in .venv. Nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported: compiling all of them doubles the install time.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c cluster/constraints.txt

.PHONY: quickstart test test-thorough test-faults test-kills test-cluster check docs clean

quickstart: .venv/.installed  ## a real sweep, in under five minutes on two cores
	$(BIN)/memmeta sweep glyphs --trials 12

# Three processes, because two cores are idle much of the time while Ray starts.
test: .venv/.installed-dev  ## all tests except those of the next four targets, with their coverage
	$(BIN)/python -m slipcover -m pytest -n 3 --dist worksteal
	@$(BIN)/python -c 'import json; print("Covered:", json.load(open(".coverage.json"))["summary"]["percent_covered_display"], "% of the lines, without these, which only CUDA reaches:")'
	@grep -rn --include='*.py' '# only on CUDA' memmeta sweeps analysis

test-thorough: .venv/.installed-dev  ## many random examples, slow reference computations, more sweeps
	$(BIN)/python -m pytest -m thorough -n 2 --dist worksteal

test-faults: .venv/.installed-dev  ## sweeps that are stopped, or whose disk, server, machine or code fails
	$(BIN)/python -m pytest -m faults -n 3 --dist worksteal

test-kills: .venv/.installed-dev  ## sweeps killed at random moments, about six minutes
	$(BIN)/python -m pytest -m kills -s

test-cluster: .venv/.installed-hosts  ## ray up, ray submit and lost machines on simulated hosts, as root
	$(BIN)/python -m pytest -m cluster -rs -s tests/cluster

check: .venv/.installed-docs  ## lint, format, types, and the links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: .venv/.installed-docs  ## the documentation as a website, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## delete the environment and the caches, but no results
	rm -rf .venv build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage.json

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml cluster/constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml cluster/constraints.txt
	$(INSTALL) -e '.[dev]'
	touch .venv/.installed $@

.venv/.installed-docs: .venv/bin/python pyproject.toml cluster/constraints.txt
	$(INSTALL) -e '.[dev,docs]'
	touch .venv/.installed .venv/.installed-dev $@

# Additional packages of the simulated hosts, in a separate folder, because they slow down every start
# of Ray. Compiled, because several hosts start at once.
.venv/.installed-hosts: .venv/.installed-dev
	$(INSTALL) --compile --prefix .venv/hosts 'ray[default]'
	touch $@
