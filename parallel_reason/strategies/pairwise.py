"""Pairwise self-verification: the model compares its own candidate solutions, two at a time."""

import itertools
import re

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.prompts import load
from parallel_reason.strategies.branches import NO_ANSWER
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.rounds import by_votes

_VERDICT = re.compile(r"\b([AB])\b")


@dataclass(frozen=True)
class Pairwise:
    """``n`` paths; one solution of each of the ``most`` leading answers meets every other in both orders.

    V1 (arXiv 2603.04304) as a round robin over distinct answers. A win is a point; of equal points the answer with more
    votes is taken. A verdict is the last A or B of a reply.
    """

    n: Count = 16
    most: Count = 4
    prompt: str = "pairwise_verification"
    name: str = "pairwise"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths)
        answers = branches.answers[paths]
        leading = list(dict.fromkeys(int(answers[place]) for place in by_votes(answers)))[: self.most]
        if len(leading) < 2:
            return leading[0] if leading else NO_ANSWER
        solution = {one: branches.text(int(np.flatnonzero(answers == one)[0])) for one in leading}
        pairs = list(itertools.permutations(leading, 2))
        template, problem = load(self.prompt), branches.thread.problem
        judged = await branches.start_anew(
            [template.render(problem, first=solution[one], second=solution[other]) for one, other in pairs]
        )
        await branches.sample(judged)
        points = dict.fromkeys(leading, 0)
        for pair, path in zip(pairs, judged, strict=False):  # a budget may have had no room for all
            if verdict := _VERDICT.findall(branches.text(path)):
                points[pair["AB".index(verdict[-1])]] += 1
        return max(leading, key=lambda one: points[one])
