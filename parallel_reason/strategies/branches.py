"""Several paths of one problem, side by side: what a strategy is written against.

The same strategy runs over `LiveBranches`, which are threads of a program, and over `RecordedBranches`, which are runs
of a file served as if they were sampled. Paths are numbered from 0 in the order in which they were started. Answers are
small numbers, equal if and only if the answers are; `NO_ANSWER` is a path that said none.
"""

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]

NO_ANSWER = -1


class Branches(Protocol):
    """Paths of one problem, and what they cost.

    Where the budget ends, all paths that still run are stopped at once with the answer that they have, and no path is
    started any more; so every loop that goes on while paths run comes to an end.
    """

    @property
    def ended(self) -> Bools:
        """Which paths came to their end or were cancelled, [paths]."""
        ...

    @property
    def lengths(self) -> Ints:
        """Tokens that each path sampled so far, probes apart, [paths]."""
        ...

    @property
    def answers(self) -> Ints:
        """What each path said at its end, or when it was last probed; NO_ANSWER before, [paths]."""
        ...

    async def start(self, n: int) -> Ints:
        """``n`` more paths, with nothing sampled yet; fewer where the budget or the record ends. Their numbers."""
        ...

    async def sample(self, paths: Ints, tokens: int | None = None, until_ended: int | None = None) -> None:
        """All of these paths that run go on at once, each to its end.

        Args:
            tokens: each stops after so many more.
            until_ended: all stop as soon as so many of these paths, earlier ones counted, have ended.
        """
        ...

    async def probe(self, paths: Ints) -> None:
        """Ask each of these paths that runs what it would answer now; it goes on unchanged. Charged."""
        ...

    def cancel(self, paths: Ints) -> None:
        """Stop these paths at once, and free what they hold. They keep their answers."""
        ...


class Strategy(Protocol):
    """A published method: parameters, and a rule over branches."""

    @property
    def name(self) -> str:
        """Under which it is chosen, and shown."""
        ...

    async def run(self, branches: Any) -> int:
        """The number of the answer, or NO_ANSWER.

        Args:
            branches: `Branches`; where a strategy needs more of them, its own signature says so.
        """
        ...


def running(branches: Branches, paths: Ints) -> Ints:
    """Those of these paths that run, in their order."""
    return paths[~branches.ended[paths]]
