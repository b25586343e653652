"""ATTS with two models: a small one drafts, a large one scores the drafts and takes over those that are unlikely."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from parallel_reason.errors import EngineError
from parallel_reason.runtime.program import Program, ProgramThread
from parallel_reason.strategies.branches import Floats, running
from parallel_reason.strategies.conformal import p_values, perplexity
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import majority
from parallel_reason.trace import Trace


@runtime_checkable
class Target(Protocol):
    """What runs the target model, such as a `ParallelLLM`."""

    async def arun(self, program: Program, prompts: str, sampling: dict[str, Any], /) -> list[Trace]:
        """Run a program on a prompt."""
        ...


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class DraftAndTarget:
    """``n`` paths of a draft model; after every ``draft_tokens`` the target model goes on with the unlikely ones.

    ATTS (arXiv 2509.15148, conditional calibration): the score of a chunk is its perplexity under the target, and its
    conformal p-value is among the first chunks of all paths of the problem. Where that is at most 1 - ``reject``, the
    target samples the path's next ``target_tokens``. After ``turns`` all paths go on to their ends by the draft model,
    and the majority counts. The two models need no common tokenizer: they exchange text.

    Attributes:
        target: the target model; its engine computes each prefix once if it caches prefixes, as vLLM does. What it
            samples is charged to the budget, and stands in the trace as text that was written.
        target_sampling: fields of `SamplingParams` for it, such as ``{"temperature": 0.7}``; greedy if empty.
    """

    target: Target
    n: Count = 16
    draft_tokens: Count = 500
    target_tokens: Count = 500
    reject: Share = 0.6
    turns: Count = 15
    target_sampling: Mapping[str, Any] = field(default_factory=dict)
    name: str = "draft_and_target"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        await branches.start(self.n)
        calibration: Floats | None = None
        for _ in range(self.turns):
            going = running(branches, np.arange(len(branches.ended)))
            before = [branches.text(path) for path in going]
            await branches.sample(going, self.draft_tokens)
            chunks = [branches.text(path)[len(seen) :] for path, seen in zip(going, before, strict=True)]
            contexts = [branches.thread.problem + seen for seen in before]
            found = await branches.elsewhere([self._score(*each) for each in zip(contexts, chunks, strict=True)])
            scores = np.array([float("inf") if one is None else one for one in found])
            calibration = scores if calibration is None else calibration
            unlikely = p_values(scores, calibration) <= 1 - self.reject
            await self._take_over(branches, [int(path) for path in going[unlikely & ~branches.ended[going]]])
            if branches.ended.all():
                break
        await branches.sample(running(branches, np.arange(len(branches.ended))))
        return majority(branches.answers)

    async def _score(self, context: str, chunk: str) -> float:
        """The perplexity of a chunk under the target; infinite of an empty one."""
        logprobs: list[float] = []

        async def score(thread: ProgramThread) -> None:
            logprobs.extend(await thread.scores(chunk))

        if chunk:
            await self._ask(score, context)
        return perplexity(np.array(logprobs))

    async def _take_over(self, branches: LiveBranches, paths: list[int]) -> None:
        """Have the target go on with these paths."""
        granted = branches.grant(len(paths))
        tokens = self.target_tokens if granted is None else min(granted, self.target_tokens)
        if not paths or not tokens:
            return
        work = [self._go_on(branches.thread.problem + branches.text(path), tokens) for path in paths]
        sampled = []
        for path, written in zip(paths, await branches.elsewhere(work), strict=True):
            if written is not None:
                text, spent, ends = written
                branches.add(path, text, ends=ends)
                sampled.append(spent)
        branches.charge(sampled)

    async def _go_on(self, context: str, tokens: int) -> tuple[str, int, bool]:
        """What the target writes next, how many tokens that is, and whether it came to its end."""
        ended: list[bool] = []

        async def go_on(thread: ProgramThread) -> str:
            text = await thread.sample(tokens)
            ended.append(thread.status == "finished")
            return text

        trace = await self._ask(go_on, context)
        return trace.text, trace.ledger.sampled_tokens, any(ended)

    async def _ask(self, program: Program, context: str) -> Trace:
        [trace] = await self.target.arun(program, context, dict(self.target_sampling))
        if trace.status == "failed":
            raise EngineError(f"the target model failed: {trace.stop_reason}")
        return trace
