# SPDX-License-Identifier: Apache-2.0
# Everything from a clone to images running through ROS 2 nodes. Every target sets up what it needs by itself; what has been
# set up once costs a tenth of a second (tools/setup.sh says how).

DURATION ?= 20
SOURCE ?= auto
CONFIG ?= backyard_camera.yaml
ARGS ?=
DATA ?=

BIN := .venv/bin

# A shell in which a ROS distribution has been sourced must not lend its modules and libraries to the environment here:
# they belong to another interpreter. The last two are what the ROS wheels leave in the environment of their children.
ifneq ($(AMENT_PREFIX_PATH),)
unexport LD_LIBRARY_PATH
endif
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH RMW_IMPLEMENTATION
unexport VIRTUAL_ENV _ROS_WHEELS_BOOTSTRAP_COMPLETE

.NOTPARALLEL:
.PHONY: help demo test lint types unit smoke results setup clean

help: ## this list
	@echo 'FLEET: early-exit inference for cameras whose radio sleeps most of the time.'
	@echo
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo
	@echo 'make results takes DATA (folder of the image set), and RUNS, OUTPUT, PICTURES, LIMIT: see tools/results.sh.'
	@echo 'make demo takes DURATION (seconds), SOURCE (auto, photos, a camera index, a file, a URL), CONFIG and ARGS.'

demo: setup ## camera (or sample photographs) -> stages -> radio -> cloud -> label, for DURATION seconds
	@$(BIN)/fleet up $(CONFIG) --source $(SOURCE) --duration $(DURATION) $(ARGS)

# From the quick to the slow; the unit tests last, because their closing line is the one to look at.
test: lint types smoke unit ## lint, types, a short run of the whole stack, and all tests

lint: setup ## ruff on everything
	@$(BIN)/ruff check .

types: setup ## mypy, strict for the method in fleet/
	@$(BIN)/mypy

smoke: setup ## eight seconds of the real nodes on sample photographs; checks what they report
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	&& $(BIN)/fleet up --source photos --duration 8 --json "$$folder/run.json" \
	&& $(BIN)/python tools/check_run.py "$$folder/run.json"

# Two at a time: whole systems beside everything else (conftest.py). With ARGS='-n0' they come one after another.
unit: setup ## pytest; ARGS='-k ladder' to choose
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

results: setup ## the paper's evaluation anew, to docs/results; hours. DATA is the folder of the image set
	@tools/results.sh "$(DATA)"

setup: ## the environment in .venv, without running anything
	@tools/setup.sh

clean: ## remove the environment and everything that was built
	rm -rf .venv .venv.old build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
