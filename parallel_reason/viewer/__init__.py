"""Runs that people can see: pages, a picture for terminals and notebooks, and exports to open formats."""

from parallel_reason.viewer.page import Counted, Figure, trace_page, write_report, write_trace_page
from parallel_reason.viewer.runs import Run, Sample, find_run
from parallel_reason.viewer.tokens import TokenTexts, local_tokenizer

__all__ = [
    "Counted", "Figure", "Run", "Sample", "TokenTexts", "find_run", "local_tokenizer", "trace_page", "write_report",
    "write_trace_page",
]  # fmt: skip
