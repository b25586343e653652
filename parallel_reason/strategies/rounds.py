"""Rounds over texts: many drafts, what is kept of them put into the next prompt, and again.

One operator covers Parallel-Distill-Refine and sequential refinement (arXiv 2510.01123), PaCoRe (arXiv 2601.05593), RSA
(arXiv 2509.26626) and SEAT (arXiv 2507.06829): they differ in how many paths a round has, what a path of the next round
gets to see, in which words, and when it stops.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.prompts import load
from parallel_reason.runtime.prompts import Prompt
from parallel_reason.strategies.branches import NO_ANSWER, Ints
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count, Natural
from parallel_reason.strategies.votes import entropy, majority

Workspace = Literal["all", "random", "top", "summary"]


@dataclass(frozen=True)
class Rounds:
    """A round of drafts after the other; the majority of the last.

    Attributes:
        breadths: paths of each round. The first round has the prompt of the trace.
        prompt: of the later rounds, a name or a file; it has ``problem`` and ``responses``.
        workspace: what a path sees of the round before: all drafts, ``k`` at random (each path its own), the ``k``
            whose answers have most votes, or one summary of all.
        summary_prompt: how the summary is asked for.
        longest: characters of a draft that are kept, its last ones; thoughts never are.
        observe: stop by semantic entropy (SEAT's rule without a threshold, optimal stopping): of so many rounds it only
            takes note, and stops after the first later one whose entropy is lower. 0: all rounds are made.
    """

    breadths: tuple[Count, ...] = (8, 1)
    prompt: str = "refine"
    workspace: Workspace = "all"
    k: Count = 4
    summary_prompt: str = "summarise_drafts"
    longest: Count = 8000
    observe: Natural = 0
    name: str = "rounds"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        drafts: list[str] = []
        best, answers = float("inf"), np.zeros(0, dtype=np.int64)
        for number, breadth in enumerate(self.breadths):
            paths = await self._started(branches, breadth, drafts, answers)
            await branches.sample(paths)
            if not len(paths):
                break
            answers = branches.answers[paths]
            drafts = [self._compact(branches.text(path)) for path in paths]
            now = entropy(answers)
            if self.observe and number >= self.observe and now < best:
                break
            best = min(best, now)
        return majority(answers) if len(answers) else NO_ANSWER

    async def _started(self, branches: LiveBranches, breadth: int, drafts: list[str], answers: Ints) -> Ints:
        """The paths of a round, of which nothing is sampled yet."""
        if not drafts:
            return await branches.start(breadth)
        problem, template = branches.thread.problem, load(self.prompt)
        if self.workspace == "summary":
            asked = await branches.start_anew([load(self.summary_prompt).render(problem, responses=drafts)])
            await branches.sample(asked)
            drafts = [self._compact(branches.text(path)) for path in asked]
        prompts: list[Prompt] = [
            template.render(problem, responses=self._seen(branches, drafts, answers)) for _ in range(breadth)
        ]
        return await branches.start_anew(prompts)

    def _seen(self, branches: LiveBranches, drafts: list[str], answers: Ints) -> list[str]:
        """What one path of the next round gets to see."""
        if self.workspace == "random":
            return branches.thread.rng.sample(drafts, min(self.k, len(drafts)))
        if self.workspace == "top":
            return [drafts[place] for place in by_votes(answers)[: self.k]]
        return drafts

    def _compact(self, draft: str) -> str:
        """What is kept of a draft: what comes after its thoughts, and of that the end."""
        return draft.rpartition("</think>")[2].strip()[-self.longest :] or "(no answer)"


def by_votes(answers: Ints) -> Sequence[int]:
    """The places of all answers, those with most votes first; none where there is no answer."""
    voters = np.flatnonzero(answers >= 0)
    counts = np.bincount(answers[voters], minlength=1)
    ranked: list[int] = voters[np.argsort(-counts[answers[voters]], kind="stable")].tolist()
    return ranked
