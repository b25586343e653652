"""Evaluations and benchmarks. Uses the public API of `parallel_reason`."""
