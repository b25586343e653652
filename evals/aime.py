"""Accuracy on AIME, as each dialect's authors publish it.

    python -m evals.aime 2025 --model ./npr-4b --dialect npr
    python -m evals.aime aime25.jsonl --model ./qwen3-8b --dialect none

It is ``parallel-reason eval``, whose options it takes, on a year of the Hub or on a file of problems.
"""

import sys

from parallel_reason.cli.app import main

YEARS = {"2024": "aime24", "2025": "aime25", "2026": "aime26"}


def task_of(name: str) -> str:
    """The task of a year, of the name of one, or of a file."""
    return YEARS.get(name, name if name in YEARS.values() else f"aime:{name}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(f"error: name a year ({', '.join(YEARS)}) or a JSONL file of problems first\n\n{__doc__}")
    main(["eval", task_of(sys.argv[1]), *sys.argv[2:]])
