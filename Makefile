# Everything is set up in .venv, and nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported: to compile all takes as long as the rest.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c cluster/constraints.txt

.PHONY: quickstart test test-thorough test-faults test-kills test-cluster check clean

quickstart: .venv/.installed  ## a real sweep, in under five minutes on two cores
	$(BIN)/python sweeps/glyphs.py --trials 12

# In three processes, since much of two cores is idle while Ray starts.
test: .venv/.installed-dev  ## all tests but those of the next four
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-thorough: .venv/.installed-dev  ## many draws, slow ways that shortcuts have to agree with, sweeps of further kinds
	$(BIN)/python -m pytest -m thorough -n 2 --dist worksteal

test-faults: .venv/.installed-dev  ## sweeps that are stopped, or whose disk, server, machine, driver or code fails
	$(BIN)/python -m pytest -m faults -n 3 --dist worksteal

test-kills: .venv/.installed-dev  ## sweeps killed at random moments, some six minutes
	$(BIN)/python -m pytest -m kills -s

test-cluster: .venv/.installed-hosts  ## ray up, ray submit and lost machines on hosts made here, as root
	$(BIN)/python -m pytest -m cluster -rs -s tests/cluster

check: .venv/.installed-dev  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## the environment and caches, but no results
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml cluster/constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml cluster/constraints.txt
	$(INSTALL) -e '.[dev]'
	touch .venv/.installed $@

# What hosts have besides: in a folder of its own, since it makes every start of Ray slower. Compiled,
# since several hosts start at once.
.venv/.installed-hosts: .venv/.installed-dev
	$(INSTALL) --compile --prefix .venv/hosts 'ray[default]'
	touch $@
