# Everything runs from .venv, which requirements/setup.sh makes on first use and mends when its inputs change.
# `make` alone lists what there is.

## make TARGET [VARIABLE=value]
##
## Variables, read at set-up:
##   PYTHON         Python 3.11, 3.12 or 3.13 that .venv is made from; found by itself
##   TORCH_INDEX    where torch comes from, if pip's own settings offer no CPU build
##   TORCH_VERSION  version of torch; the tested one by itself
PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_VERSION ?= $(shell sed -n 's/^torch==//p' requirements/constraints.txt)
##
## Targets:

READY := .venv/.ready
INPUTS := pyproject.toml $(wildcard requirements/*) $(wildcard stubs/*/pyproject.toml)

.PHONY: help setup demo test check-gpu lint lock clean

help: ## this list
	@awk '/^##/ { sub(/^## ?/, ""); print } \
		/^[a-z-]+:.*## / { split($$0, part, /:.*## /); printf "  %-14s %s\n", part[1], part[2] }' Makefile

setup: $(READY) ## make .venv with all that the other targets need
	@echo ".venv is ready"

demo: $(READY) ## run the embedded model on problems it has not seen
	@.venv/bin/parallel-reason demo

test: $(READY) ## run the tests, on real vLLM
	@.venv/bin/pytest

check-gpu: .venv-gpu/.ready ## on a machine with a GPU: the exactness contract on vLLM's CUDA build, in .venv-gpu
	@.venv-gpu/bin/python -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU: check nvidia-smi"'
	@.venv-gpu/bin/parallel-reason doctor
	@.venv-gpu/bin/pytest -v tests/test_gpu.py

lint: $(READY) ## check style, formatting and types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

lock: ## write the versions now in .venv to requirements/constraints.txt
	@.venv/bin/pip freeze --all --exclude pip --exclude-editable > .venv/freeze.txt
	@{ sed -n '/^#/p' requirements/constraints.txt; sed '/ @ /d; s/+.*//' .venv/freeze.txt; } > .venv/constraints.txt
	@mv .venv/constraints.txt requirements/constraints.txt

clean: ## remove .venv and every cache
	@rm -rf .venv .venv-gpu dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-gpu/.ready: pyproject.toml
	@echo "Setting up .venv-gpu; it takes some minutes and 12 GB of disk"
	@$(or $(PYTHON),python3.11) -m venv .venv-gpu
	@.venv-gpu/bin/pip install --quiet --editable '.[gpu]' pytest hypothesis
	@touch $@

$(READY): $(INPUTS)
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' TORCH_VERSION='$(TORCH_VERSION)' bash requirements/setup.sh
