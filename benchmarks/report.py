"""How figures are taken and written: ways of doing one thing in turn, medians with their range, ratios, tables."""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

T = TypeVar("T")


async def alternate(ways: Mapping[str, Callable[[], Awaitable[T]]], runs: int) -> dict[str, list[T]]:
    """Run every way in turn, there and back, ``runs`` times, after one run of each that does not count."""
    for way in ways.values():
        await way()
    results: dict[str, list[T]] = {name: [] for name in ways}
    for turn in range(runs):
        for name in list(ways)[:: (-1) ** turn]:
            results[name].append(await ways[name]())
    return results


def median_range(values: list[float]) -> str:
    """``median [least, most]``."""
    median, least, most = map(_short, (statistics.median(values), min(values), max(values)))
    return f"{median} [{least}, {most}]"


def median_range_ms(seconds: list[float]) -> str:
    """``median [least, most]`` in milliseconds."""
    return median_range([1000 * s for s in seconds])


def ratio(first: list[float], second: list[float]) -> str:
    """``median [least, most]`` of the ratio of each pair."""
    return median_range([a / b for a, b in zip(first, second, strict=True)])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Report:
    """Where tables are written.

    Attributes:
        markdown: whether as Markdown; else for a terminal.
    """

    console: Console
    markdown: bool = False

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Write one table."""
        if self.markdown:
            text = "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])
            print(f"{title}\n\n{text}\n", flush=True)
            return
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)
