"""Paths of one problem as threads of a program: what a strategy is run over with a model."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.runtime.program import ProgramThread
from parallel_reason.runtime.prompts import Prompt, render
from parallel_reason.strategies.branches import NO_ANSWER, Bools, Floats, Ints
from parallel_reason.strategies.budget import Budget
from parallel_reason.strategies.confidence import token_confidences
from parallel_reason.tasks.grading import boxed

T = TypeVar("T")
AnswerOf = Callable[[str], str | None]
FORCED_ANSWER = "\n\nTime is up. My final answer is \\boxed{"


class LiveBranches:
    """See `Branches`. Paths are children of one thread, whose prefix KV they share.

    Attributes:
        names: the answer of each number.
        probe_text: written into a probe; what it and the model's next ``probe_tokens`` say is the answer of now.
        total_tokens, critical_path: sampled so far, as the ledger counts; a path that samples counts once it stops.
    """

    def __init__(
        self,
        thread: ProgramThread,
        *,
        answer_of: AnswerOf = boxed,
        budget: Budget | None = None,
        probe_text: str = FORCED_ANSWER,
        probe_tokens: int = 16,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        """Over a thread that has its prompt; ``sampling`` are fields of `SamplingParams` for all paths."""
        self.thread, self.answer_of = thread, answer_of
        self.probe_text, self.probe_tokens = probe_text, probe_tokens
        self.names: list[str] = []
        self._budget, self._sampling = budget, dict(sampling or {})
        self._threads: list[ProgramThread] = []
        self._answers: list[int] = []
        self._ends: list[int] = []  # of each path, on the clock: when it last stopped
        self._added: dict[int, tuple[str, int]] = {}  # text up to the last `add`, and how much of it is the thread's
        self._elsewhere: set[asyncio.Future[Any]] = set()
        self._going: dict[int, tuple[asyncio.Task[str], int]] = {}  # with the tokens that it was granted
        self._anew: set[int] = set()
        self._clock = self._beside = 0
        self._spent = False
        if budget is not None and budget.deadline_s is not None:
            asyncio.get_running_loop().call_later(budget.deadline_s, self._spend)

    @property
    def ended(self) -> Bools:
        """See `Branches.ended`."""
        return np.array([thread.ended for thread in self._threads], dtype=bool)

    @property
    def lengths(self) -> Ints:
        """See `Branches.lengths`."""
        return np.array([thread.sampled_tokens for thread in self._threads], dtype=np.int64)

    @property
    def answers(self) -> Ints:
        """See `Branches.answers`."""
        return np.array(self._answers, dtype=np.int64)

    @property
    def total_tokens(self) -> int:
        """Sampled by all paths, and beside them by probes, judges and summaries."""
        return sum(thread.sampled_tokens for thread in self._threads) + self._beside

    @property
    def critical_path(self) -> int:
        """Sampled one after another."""
        return max([self._clock, *self._ends])

    def text(self, path: int) -> str:
        """What a path wrote so far, and what another model wrote for it."""
        before, seen = self._added.get(path, ("", 0))
        return before + self._threads[path].text[seen:]

    def confidences(self, path: int) -> Floats:
        """The confidence of each token of a path, [tokens]; its calls must have asked for ``logprobs``."""
        return token_confidences(self._threads[path].top_logprobs)

    def logprobs(self, path: int) -> Floats:
        """The log-probs of what a path sampled, [tokens]."""
        return np.array(self._threads[path].logprobs, dtype=np.float64)

    def number(self, answer: str | None) -> int:
        """The number of an answer."""
        if answer is None:
            return NO_ANSWER
        if answer not in self.names:
            self.names.append(answer)
        return self.names.index(answer)

    async def start(self, n: int, begin: str = "") -> Ints:
        """See `Branches.start`. Each path begins with the text ``begin``."""
        first = len(self._threads)
        if not self._spent and n > 0:
            born = self.thread.fork([begin] * n if begin else n)
            self._add([thread for thread in born if not thread.ended])
        return np.arange(first, len(self._threads))

    async def start_anew(self, prompts: Sequence[Prompt]) -> Ints:
        """Paths that see nothing but a prompt each: chat messages, or a raw text."""
        first = len(self._threads)
        if not self._spent:
            self._add([self.thread.probe(ids, shares_prefix=False) for ids in map(self._rendered, prompts)])
            self._anew.update(range(first, len(self._threads)))
        return np.arange(first, len(self._threads))

    def _rendered(self, prompt: Prompt) -> list[int]:
        run = self.thread._run
        return render(prompt, run.engine, run.limits, chat=None if isinstance(prompt, str) else ChatOptions()).ids

    async def fork(self, paths: Sequence[int]) -> Ints:
        """Each of these paths once more, with all that it wrote so far; the originals go on as well."""
        first = len(self._threads)
        if not self._spent:
            self._add([self._threads[path].probe([]) for path in paths])
        return np.arange(first, len(self._threads))

    def _add(self, threads: list[ProgramThread]) -> None:
        self._threads += threads
        self._answers += [NO_ANSWER] * len(threads)
        self._ends += [self._clock] * len(threads)

    def write(self, path: int, text: str) -> None:
        """Write a text into a path, which goes on from there."""
        self._threads[path].write(text)

    def add(self, path: int, text: str, *, ends: bool) -> None:
        """Write what another model sampled as the next text of a path; with ``ends`` the path has come to its end."""
        self._added[path] = self.text(path) + text, len(self._threads[path].text)
        if not ends:
            self._threads[path].write(text)
            return
        self._answers[path] = self.number(self.answer_of(self.text(path)))
        self._threads[path].cancel("the other model came to its end")

    async def elsewhere(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T | None]:
        """Wait for what other engines do, all at once; None for what had to stop as the budget was used up."""
        tasks = [asyncio.ensure_future(one) for one in work]
        self._elsewhere.update(tasks)
        if self._spent:
            self._spend()
        if tasks:
            await asyncio.wait(tasks)
        self._elsewhere.difference_update(tasks)
        return [None if task.cancelled() else task.result() for task in tasks]

    async def sample(
        self, paths: Ints, tokens: int | None = None, until_ended: int | None = None, stop: str | None = None
    ) -> None:
        """See `Branches.sample`. With ``until_ended`` the others sample on, until a later call or `cancel`.

        Args:
            stop: a text at which a path pauses.
        """
        going = [int(path) for path in paths if not self._threads[path].ended]
        fresh = [path for path in going if path not in self._going]
        granted = self.grant(len(fresh))
        cut = granted is not None and (tokens is None or granted < tokens)
        for path in fresh if granted != 0 else ():
            most = granted if cut else tokens
            task = asyncio.ensure_future(self._threads[path].sample(most, stop=stop or (), **self._sampling))
            self._going[path] = (task, most or 0)
        await self._wait([int(path) for path in paths], until_ended)
        if not cut or self._going or all(self._threads[path].ended for path in fresh):
            return
        if granted:  # what those that ended did not need is dealt out again
            await self.sample(paths, None if tokens is None else tokens - granted, until_ended, stop)
        else:
            self._spend()

    def grant(self, paths: int) -> int | None:
        """How many tokens each of ``paths`` may sample now by the budget, all at once; None without a bound."""
        if self._budget is None:
            return None
        promised = sum(granted for _, granted in self._going.values())
        return self._budget.grant(paths, self.total_tokens + promised, self.critical_path)

    async def _wait(self, paths: list[int], until_ended: int | None) -> None:
        """Until these paths stop, or so many of them have ended."""
        before = {path: self._threads[path].sampled_tokens for path in paths}
        while going := {self._going[path][0]: path for path in paths if path in self._going}:
            if until_ended is not None and sum(self._threads[path].ended for path in paths) >= until_ended:
                break
            done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._stopped(going[task], task)
        stopped = [path for path in paths if path not in self._going]
        self._clock += max((self._threads[path].sampled_tokens - before[path] for path in stopped), default=0)
        if anew := [self._threads[path] for path in stopped if path in self._anew]:
            self.thread.join(anew)  # it waited for them: they are on its critical path
            self._anew.difference_update(stopped)
        for path in stopped:
            self._ends[path] = max(self._ends[path], self._clock)

    def _stopped(self, path: int, task: "asyncio.Task[str]") -> None:
        """A path stopped: what it says, if it came to its end."""
        del self._going[path]
        task.result()  # raises what the call was wrong about
        if self._threads[path].status == "finished":
            self._answers[path] = self.number(self.answer_of(self.text(path)))

    async def probe(self, paths: Ints) -> None:
        """See `Branches.probe`. Probes that may cost more than what is left use the budget up: none is asked."""
        going = [int(path) for path in paths if not self._threads[path].ended]
        if not going or self._spent:
            return
        granted = self.grant(len(going))
        if granted is not None and granted < self.probe_tokens:
            self._spend()
            return
        asked = [self._threads[path].probe(self.probe_text) for path in going]
        await asyncio.gather(*(one.sample(self.probe_tokens, **self._sampling) for one in asked))
        for path, one in zip(going, asked, strict=True):
            self._answers[path] = self.number(self.answer_of(self.probe_text + one.text))
            self._threads[path].join(one)
        self.charge([one.sampled_tokens for one in asked])

    def charge(self, tokens: Sequence[int]) -> None:
        """Count what was sampled beside the paths, by threads that went on at once."""
        self._beside += sum(tokens)
        self._clock += max(tokens, default=0)

    def cancel(self, paths: Ints) -> None:
        """See `Branches.cancel`."""
        for path in paths:
            self._threads[path].cancel("stopped by the strategy")

    def _spend(self) -> None:
        """The budget is used up: stop all that runs."""
        self._spent = True
        for thread in self._threads:
            thread.cancel("the budget is used up")
        for task in self._elsewhere:
            task.cancel()

    async def close(self) -> None:
        """Stop what still runs, and wait for it."""
        self._spend()
        if left := [*(task for task, _ in self._going.values()), *self._elsewhere]:
            await asyncio.wait(left)
