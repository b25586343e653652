"""Choose the parameters of `first_consensus` on one file of recorded branches, and draw what they cost on another.

    python docs/draw_strategies.py CHOOSE_ON.json REPORT_ON.json [--resamplings 100] [--out docs/strategies.svg]

Choosing sees the first file alone. Every setting of the grid that spends no more there than the cheapest published
method of each kind (20.3k tokens one after another, 226.0k together) is a candidate. By the one-standard-error rule
(Breiman et al. 1984), of those whose accuracy is within one standard error of the best, over problems, the most
cautious is taken: that with the largest `longest`, then `threshold`, then `n`.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from picture import THREADS, picture, swatch

from evals.replay import Replay, figures, rows
from parallel_reason.strategies import find
from parallel_reason.strategies.first_consensus import FirstConsensus
from parallel_reason.strategies.recorded import Accounting
from parallel_reason.strategies.recording import FORMS, read_recording

GRID = [
    FirstConsensus(n=n, threshold=threshold, longest=longest, name=f"n={n} threshold={threshold} longest={longest}")
    for n, threshold, longest in itertools.product(
        (8, 12, 16, 24), (0.95, 0.99), (20_000, 22_500, 25_000, 30_000, 40_000)
    )
]
MOST_SEQUENTIAL, MOST_TOTAL = 20_300, 226_000
OTHERS = ["sc", "asc", "esc", "sac", "parallel_probe", "short_mk"]
WIDTH, HEIGHT, LEFT, TOP, PLOT = 780, 330, 52, 44, 300
COSTS = ("sequential_tokens", "total_tokens")


def chosen(found: list[dict[str, Any]]) -> int:
    """The place of the setting that the rule of this page takes."""
    cheap = [
        place
        for place, row in enumerate(found)
        if row["sequential_tokens"] <= MOST_SEQUENTIAL and row["total_tokens"] <= MOST_TOTAL
    ]
    best = max(cheap, key=lambda place: found[place]["accuracy"])
    by_problem = found[best]["accuracy_by_problem"]
    least = found[best]["accuracy"] - np.std(by_problem, ddof=1) / len(by_problem) ** 0.5
    within = [place for place in cheap if found[place]["accuracy"] >= least]
    print("most accurate there:", GRID[best].name, f"{100 * found[best]['accuracy']:.1f}%; at least {100 * least:.1f}%")
    return max(within, key=lambda place: (GRID[place].longest, GRID[place].threshold, GRID[place].n))


def drawn(grid: list[dict[str, Any]], others: list[dict[str, Any]], taken: int, title: str) -> str:
    """Accuracy over both costs, on logarithmic scales."""
    low, high = 64.0, 84.0
    body = [f'<text x="14" y="20">{title}</text>']
    for panel, cost in enumerate(COSTS):
        left = LEFT + panel * (PLOT + 70)
        bounds = (9_000, 600_000) if panel == 0 else (60_000, 1_300_000)
        body += axes(left, cost, bounds, low, high)
        for place, row in enumerate(grid):
            x, y = spot(row, cost, left, bounds, low, high)
            radius, colour = (5, THREADS[2]) if place == taken else (2, THREADS[1])
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>')
        for row in others:
            x, y = spot(row, cost, left, bounds, low, high)
            body.append(f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{THREADS[0]}"/>')
            body.append(f'<text class="quiet" x="{x + 6:.1f}" y="{y + 12:.1f}">{row["strategy"]}</text>')
    body += swatch(400, 10, THREADS[1], "first_consensus, all settings")
    body += swatch(640, 10, THREADS[2], "the chosen one")
    return picture(WIDTH, HEIGHT, (), body)


def spot(
    row: dict[str, Any], cost: str, left: int, bounds: tuple[int, int], low: float, high: float
) -> tuple[float, float]:
    """Where a row lies, in pixels."""
    across = np.log(row[cost] / bounds[0]) / np.log(bounds[1] / bounds[0])
    up = (100 * row["accuracy"] - low) / (high - low)
    return left + PLOT * float(across), TOP + (HEIGHT - TOP - 46) * (1 - float(up))


def axes(left: int, cost: str, bounds: tuple[int, int], low: float, high: float) -> list[str]:
    """The lines and numbers of a panel."""
    bottom = HEIGHT - 46
    body = [f'<path class="edge" d="M{left},{TOP} V{bottom} H{left + PLOT}"/>']
    for accuracy in range(int(low), int(high) + 1, 4):
        y = TOP + (bottom - TOP) * (1 - (accuracy - low) / (high - low))
        body.append(f'<text class="quiet" x="{left - 30}" y="{y + 4:.1f}">{accuracy}%</text>')
    for tokens in (10_000, 20_000, 40_000, 100_000, 200_000, 400_000, 1_000_000):
        if bounds[0] <= tokens <= bounds[1]:
            x = left + PLOT * float(np.log(tokens / bounds[0]) / np.log(bounds[1] / bounds[0]))
            body.append(f'<text class="quiet" x="{x - 12:.1f}" y="{bottom + 16}">{tokens // 1000}k</text>')
    body.append(f'<text class="quiet" x="{left + 90}" y="{bottom + 34}">{cost.replace("_", " ")}</text>')
    return body


def run(
    choose_on: Path,
    report_on: Path,
    resamplings: Annotated[int, typer.Option(min=2)] = 100,
    answers: str = "readable",
    out: Path = Path("docs/strategies.svg"),
) -> None:
    """Choose, report, draw."""
    first, second = (Replay(read_recording(file, FORMS[answers]), Accounting(16)) for file in (choose_on, report_on))
    taken = chosen(list(rows(first, GRID, resamplings, 2)))
    grid = list(rows(second, GRID, resamplings, 2))
    print("chosen:", GRID[taken].name)
    for replayed, file in ((first, choose_on), (second, report_on)):
        runs = replayed.runs(GRID[taken], 0, max(resamplings, 1000))
        row = {key: value for key, value in figures(GRID[taken].name, runs).items() if key != "accuracy_by_problem"}
        print(file.name, json.dumps(row))
    others = list(rows(second, [find(name) for name in OTHERS], min(resamplings, 100), 2))
    out.write_text(drawn(grid, others, taken, f"{report_on.stem}, {resamplings} resamplings"), encoding="utf-8")


if __name__ == "__main__":
    typer.run(run)
