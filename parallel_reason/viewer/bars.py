"""The lanes of a trace as bars of characters, for terminals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parallel_reason.trace import Trace
from parallel_reason.viewer.critical import clocks, critical_spans
from parallel_reason.viewer.lanes import Phase, lanes

Cell = Literal["critical", "decoding", "queued", "waiting", "prefix", ""]
CHARACTERS: dict[Cell, str] = {
    "critical": "█", "decoding": "▓", "queued": "/", "waiting": "·", "prefix": "─", "": " ",
}  # fmt: skip
STRENGTH: tuple[Cell, ...] = ("", "prefix", "waiting", "queued", "decoding", "critical")


@dataclass(frozen=True)
class Bar:
    """A thread's lane.

    Attributes:
        thread: its number in the trace.
        cells: [width].
    """

    thread: int
    cells: tuple[Cell, ...]

    def runs(self) -> list[tuple[Cell, str]]:
        """Its cells as characters, those of one kind together."""
        found: list[tuple[Cell, str]] = []
        for cell in self.cells:
            if found and found[-1][0] == cell:
                found[-1] = (cell, found[-1][1] + CHARACTERS[cell])
            else:
                found.append((cell, CHARACTERS[cell]))
        return found


def bars(trace: Trace, width: int) -> tuple[list[Bar], str]:
    """The lanes of all threads, parents before children and siblings by their start; and what the width stands for.

    In seconds, as recorded; in steps of one token if the trace has no times.
    """
    times = lanes(trace.threads)
    end = max(lane.ended_s for lane in times)
    marked = critical_spans(trace.threads)
    if end > 0:
        starts = [lane.started_s for lane in times]
        phases: list[Sequence[Phase]] = [lane.phases for lane in times]
        what = f"{end:.3g} s"
    else:
        starts, phases = _in_steps(trace)
        end = max([phase.ended_s for lane in phases for phase in lane], default=0.0) or 1.0
        what = f"{end:.0f} token steps"
    found = []
    for number in _order(trace, starts):
        cells: list[Cell] = [""] * width
        shares = number > 0 and _shares(trace, number)
        if shares:
            _paint(cells, "prefix", 0, starts[number] / end)
        for phase in phases[number]:
            kind: Cell = "critical" if (number, phase.span) in marked and phase.kind == "decoding" else phase.kind
            _paint(cells, kind, phase.started_s / end, phase.ended_s / end)
        found.append(Bar(number, tuple(cells)))
    return found, what


def _paint(cells: list[Cell], kind: Cell, start: float, end: float) -> None:
    """Set the cells of an interval, given as shares of the width; what is short still has one."""
    first = min(len(cells) - 1, int(start * len(cells)))
    for at in range(first, max(first + 1, min(len(cells), round(end * len(cells))))):
        if STRENGTH.index(kind) >= STRENGTH.index(cells[at]):
            cells[at] = kind


def _in_steps(trace: Trace) -> tuple[list[float], list[Sequence[Phase]]]:
    """Starts and phases of all threads if every token takes one step."""
    starts, places = clocks(trace.threads)
    phases: list[Sequence[Phase]] = []
    for number, thread in enumerate(trace.threads):
        clock, own = float(starts[number]), []
        for place, span in enumerate(thread.spans):
            begins = float(places[number][place])
            if begins > clock:
                own.append(Phase("waiting", clock, begins))
            clock = begins
            if span.origin == "sampled" and span.ids:
                own.append(Phase("decoding", clock, clock + len(span.ids), place))
                clock += len(span.ids)
        if places[number][-1] > clock:
            own.append(Phase("waiting", clock, float(places[number][-1])))
        phases.append(own)
    return [float(start) for start in starts], phases


def _order(trace: Trace, starts: Sequence[float]) -> list[int]:
    below: dict[int | None, list[int]] = {}
    for number, thread in enumerate(trace.threads):
        below.setdefault(thread.parent, []).append(number)
    order, stack = [], [0]
    while stack:
        number = stack.pop()
        order.append(number)
        stack += sorted(below.get(number, []), key=lambda child: (starts[child], child), reverse=True)
    return order


def _shares(trace: Trace, number: int) -> bool:
    parent = trace.threads[trace.threads[number].parent or 0]
    return next(fork.shares_prefix for fork in parent.forks if number in fork.children)
