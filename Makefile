# Everything below prepares .venv by itself; `make help` lists it.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# What `make run` trains, where it writes (default: runs/<task>/<config>/seed_<seed>), and one more
# setting, for example SET="run.seed = 2". The recipe reads them from its environment, so quotes
# and spaces in them are safe.
CONFIG = configs/tasks/cartpole_swingup.gin
RUN_DIR =
SET =
# Further words for the tool that a target runs, for example make test ARGS="-k rows -x".
ARGS =
# How long `make chaos` hurts a run.
MINUTES = 20
export CONFIG RUN_DIR SET

.PHONY: help setup run test test-all lint format types bench bench-guard chaos lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make setup     prepare .venv from requirements.lock (PYTHON=python3.10, EXTRAS=gpu)'
	@echo 'make run       train a policy (CONFIG=..., RUN_DIR=..., SET="a.b = 1")'
	@echo 'make test      the fast tests (ARGS="-k rows")'
	@echo 'make test-all  all tests'
	@echo 'make lint      check style and format'
	@echo 'make format    mend style and format'
	@echo 'make types     check types'
	@echo 'make bench     measure beside other projects (ARGS="--sections=learner"; docs/benchmarks.md)'
	@echo 'make bench-guard  fail if a ratio to them has fallen by 15 % (ARGS=--update stores them)'
	@echo 'make chaos     hurt a run for MINUTES=20 and check that nothing is lost'
	@echo 'make lock      resolve setup.py anew into requirements.lock (ARGS=--upgrade) and conda_env.yml'
	@echo 'make clean     remove .venv and what the tools left; runs/ stays'

setup:
	@.ci/setup

run: setup
	@sactory run "$$CONFIG" $${RUN_DIR:+--run_dir "$$RUN_DIR"} $${SET:+--set "$$SET"}

test: setup
	@python -m pytest $(ARGS)

test-all: setup
	@python -m pytest -m '' $(ARGS)

lint: setup
	@ruff check . $(ARGS)
	@ruff format --check .

format: setup
	@ruff check --fix . $(ARGS)
	@ruff format .

types: setup
	@basedpyright $(ARGS)

# benchmarks.learning takes hours and is run by itself.
bench: setup
	@python -m benchmarks.bench $(ARGS)

bench-guard: setup
	@python -m benchmarks.guard $(ARGS)

chaos: setup
	@python -m benchmarks.chaos.soak --minutes=$(MINUTES) $(ARGS)

lock: setup
	@python .ci/lock.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
