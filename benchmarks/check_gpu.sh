#!/usr/bin/env bash
# What only a GPU can show, the most valuable first: run by `make check-gpu`, or from the root of a checkout.
#
#     bash benchmarks/check_gpu.sh                    # every step
#     bash benchmarks/check_gpu.sh grafts torch       # these steps alone
#     K='v1 and eager' bash benchmarks/check_gpu.sh grafts
#
# A step that fails or runs out of time does not keep the next from running. Exit status 1 if one did, 2 without a GPU.
#
# PYTHON   that has the project and vLLM for CUDA; python3
# OUT      a folder for summary.txt, log.txt with all that was printed, vllm.log with what vLLM wrote in steps that failed,
#          and the tests' results as XML; /tmp/check-gpu
# BUDGET   seconds for all steps; no bound if 0
# AT_ONCE  engines side by side on the card, where pytest-xdist is installed; 8
# K        picks among the tests of `grafts`, as pytest's -k
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

export PYTHON=${PYTHON:-python3} OUT=${OUT:-/tmp/check-gpu} K=${K:-}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
budget=${BUDGET:-0}
export AT_ONCE=${AT_ONCE:-8}
wanted=" $* "
failed=0
export TMPDIR
TMPDIR=$(mktemp -d) # where engines log
export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-INFO}
mkdir -p "$OUT"
: >"$OUT/summary.txt"
: >"$OUT/log.txt"

step() { # name, seconds at most, command
    local name=$1 limit=$2 start=$SECONDS log=$OUT/$1.txt status=0 said=PASS last
    shift 2
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
    if [ "$budget" -gt 0 ] && [ "$limit" -gt $((budget - SECONDS)) ]; then
        limit=$((budget - SECONDS))
    fi
    if [ "$limit" -lt 15 ]; then
        echo "SKIP $name: no time left" | tee -a "$OUT/summary.txt"
        return 0
    fi
    printf '\n===== %s (%s s at most)\n' "$name" "$limit" | tee -a "$OUT/log.txt"
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 || status=$?
    last=$(grep -v '^ *$' "$log" | tail -n 1 | cut -c1-160)
    if [ "$status" = 0 ] && [[ $last == *skipped* && $last != *passed* ]]; then
        status=5 # tests that saw no GPU
    fi
    case $status in
        0) ;;
        124 | 137) said=TIME ;;
        *) said=FAIL ;;
    esac
    [ "$said" = PASS ] || failed=$((failed + 1))
    [ "$said" = PASS ] || tail -n 400 "$TMPDIR"/parallel-reason-vllm-*.log >>"$OUT/vllm.log" 2>/dev/null
    rm -f "$TMPDIR"/parallel-reason-vllm-*.log
    grep -v '^ *$' "$log" | tail -n 24 | cut -c1-220
    cat "$log" >>"$OUT/log.txt"
    rm "$log"
    echo "$said $name, $((SECONDS - start)) s: $last" >>"$OUT/summary.txt"
}

facts() { # the card, the versions, and a product on the card
    nvidia-smi || echo "no nvidia-smi"
    "$PYTHON" - <<'PY'
import importlib.metadata as installed
import platform
import sys

import torch

print("Python", platform.python_version())
for name in ("torch", "triton", "transformers", "vllm", "flashinfer-python", "trl", "pytest", "pytest-xdist"):
    try:
        print(f"  {name} {installed.version(name)}")
    except installed.PackageNotFoundError:
        print(f"  {name} -")
if not torch.cuda.is_available():
    sys.exit("torch sees no GPU: check nvidia-smi, and that torch is a build for CUDA")
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), "CUDA", torch.version.cuda)
x = torch.randn(64, 64, device="cuda", dtype=torch.float64)
assert torch.allclose((x.float() @ x.float()).double(), x @ x, atol=1e-3)
PY
}

engine() { # vLLM's kernels run, and the project finds nothing wrong
    "$PYTHON" - <<'PY'
import torch
from vllm._custom_ops import rms_norm
from vllm.platforms import current_platform as platform

platform.import_kernels()
x, w, out = torch.randn(4, 256, device="cuda"), torch.ones(256, device="cuda"), torch.empty(4, 256, device="cuda")
rms_norm(out, x, w, 1e-6)
assert torch.allclose(out, torch.nn.functional.rms_norm(x, (256,), w, 1e-6), atol=1e-5), "vLLM's kernels are wrong"
print("vLLM's kernels run on", platform.device_name, platform.get_device_capability())
PY
    project doctor
}

project() { # the command parallel-reason, of this Python
    "$PYTHON" -c 'from parallel_reason.cli.app import main; main()' "$@"
}

first() { # one dialect that grafts: exact in float32, and what came of float32 with tf32 products
    local folder
    folder=$(mktemp -d)
    "$PYTHON" -c 'import sys; from benchmarks.grammars import build; build(sys.argv[1], "qwen3", ["multiverse"])' "$folder"
    TRITON_F32_DEFAULT=tf32 project check ab --model "$folder" --dialect multiverse --n 24 ||
        echo "(that was for information: tf32)"
    project check ab --model "$folder" --dialect multiverse --n 24
}

tests() { # name of the results, how many at once, then pytest's arguments
    local results=$1 at_once=$2 more=()
    shift 2
    "$PYTHON" -c 'import pytest_timeout' 2>/dev/null && more+=(--timeout 150)
    "$PYTHON" -c 'import xdist' 2>/dev/null && [ "$at_once" -gt 1 ] && more+=(-n "$at_once")
    "$PYTHON" -m pytest -v -p no:cacheprovider --junitxml="$OUT/$results.xml" "${more[@]}" "$@"
}

grafts() { # the contract on vLLM: both model runners, with and without CUDA graphs, and two engines on the card
    tests grafts "$AT_ONCE" tests/test_gpu.py -k "not torch_engine and not flex and not policy ${K:+and ($K)}"
}

export -f facts engine project first tests grafts

step facts 60 bash -c facts
if [ "$wanted" = "  " ] && [ "$failed" -gt 0 ]; then
    echo "no GPU that can be used: nothing else was run"
    exit 2
fi
step engine 120 bash -c 'set -e; engine'
step first 200 bash -c 'set -e; first'
step grafts 420 bash -c grafts
step torch 120 bash -c 'tests torch 5 tests/test_gpu.py -k torch_engine'
step flex 120 bash -c 'tests flex 1 tests/test_gpu.py -k flex'
step policy 120 bash -c 'tests policy 1 tests/test_gpu.py -k policy'
step join 150 "$PYTHON" -m benchmarks.graft --only join --pairs 3 --models 80M,8B --dtype bfloat16 --cases 8x128,8x512,32x512
step trace 200 "$PYTHON" -m benchmarks.graft --only trace --models 8B --dtype bfloat16 --traces 16 --trace-pairs 1
step overhead 120 "$PYTHON" -m benchmarks.overhead --pairs 2
step soak 120 "$PYTHON" -m benchmarks.soak --traces 200 --blocks 256 --every 10
step fork 120 "$PYTHON" -m benchmarks.graft --only fork --models 80M,8B --dtype bfloat16 --pairs 3
step core 120 "$PYTHON" -m benchmarks.engines --pairs 1

printf '\n===== summary, %s s\n' "$SECONDS"
cat "$OUT/summary.txt"
exit $((failed > 0))
