"""Programs: async functions that fork, sample, score and join the threads of a trace. `docs/programs.md` is the guide.

    async def compare(t):
        paths = t.fork(["Path A:", "Path B:"])
        await paths.sample(max_tokens=200, stop="Path")
        t.join(paths, rule="graft")
        return await t.sample(max_tokens=100)

``t`` is a thread with its prompt given. What a program returns, or gives to `ProgramThread.finish`, is the answer of
the trace.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from parallel_reason.errors import InputError
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.runtime.program_call import Call
from parallel_reason.runtime.program_join import join
from parallel_reason.runtime.program_run import ProgramRun
from parallel_reason.runtime.program_sampling import tokens
from parallel_reason.runtime.program_state import ProgramState
from parallel_reason.runtime.prompts import Prompt, encoded, render
from parallel_reason.text import TextStream
from parallel_reason.trace import JoinRule, Status

Text: TypeAlias = str | Sequence[int]
Program: TypeAlias = Callable[["ProgramThread"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that a thread sampled.

    Attributes:
        id: token id; ``text`` is what it adds to the text before.
        logprob: its natural-log probability under the model at temperature 1.
        top_logprobs: token id to log-prob of the most likely tokens, if the call asked for them with ``logprobs=k``.
    """

    id: int
    text: str
    logprob: float
    top_logprobs: dict[int, float]


class ProgramThread:
    """One thread of a program.

    A thread that has ended takes no more: `sample` adds nothing, `write` and `take_back` do nothing, and no call on it
    raises, so that a program goes on with the others. A call that is wrong raises InputError.
    """

    def __init__(self, run: ProgramRun, state: ProgramState) -> None:
        """Made by a run, and by `fork`, `probe` and `ask`."""
        self._run = run
        self._state = state

    @property
    def label(self) -> str:
        """Its path in the tree: ``0`` is the root, ``0.2`` its third child."""
        return self._state.live.label

    @property
    def status(self) -> Status | None:
        """How it ended; None while it may go on."""
        return "finished" if self._state.at_end else self._state.live.status

    @property
    def stop_reason(self) -> str:
        """What ended it: ``limits.tokens=4096``, an error; empty while it may go on."""
        return self._state.live.stop_reason

    @property
    def ended(self) -> bool:
        """Whether it samples no more: at the model's end of text, at a limit, cancelled or failed.

        After an end of text it goes on once something was written, or the end was taken back.
        """
        return self._state.ended

    @property
    def ids(self) -> list[int]:
        """What it sampled so far and was not taken back, [tokens]."""
        return list(self._state.live.sampled)

    @property
    def text(self) -> str:
        """`ids` as text, without the model's end of text."""
        return self._run.text(self._state.live.sampled)

    @property
    def sampled_tokens(self) -> int:
        """How many tokens it sampled, taken back or not."""
        return self._state.live.drawn

    @property
    def logprobs(self) -> list[float]:
        """Log-probs of `ids` under the model at temperature 1, [tokens]."""
        return list(self._state.logprobs)

    @property
    def top_logprobs(self) -> list[dict[int, float]]:
        """The most likely tokens in the place of each of `ids`, [tokens]; empty if a call did not ask for them."""
        return list(self._state.top_logprobs)

    @property
    def problem(self) -> str:
        """The text of the prompt of the trace."""
        return self._run.problem

    @property
    def answer(self) -> str | None:
        """What `finish` was given."""
        return self._state.answer

    @property
    def rng(self) -> random.Random:
        """Random numbers of this thread; the same ones for the same seed, prompt and sample."""
        if self._state.rng is None:
            noise = self._run.noise
            self._state.rng = random.Random(None if noise is None else f"{noise}/{self.label}")
        return self._state.rng

    async def sample(
        self,
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        stop_token_ids: Sequence[int] = (),
        **sampling: Any,
    ) -> str:
        """Sample until a stop, ``max_tokens``, the model's end of text or a limit.

        Args:
            max_tokens: of this call; None for as many as the thread may sample.
            stop, stop_token_ids: texts and tokens at which it pauses; they stay in the thread.
            sampling: fields of `SamplingParams` for this call, such as ``temperature=0.6`` or ``logprobs=20``.

        Returns:
            The text that it added, without the model's end of text.
        """
        before = self.sampled_tokens
        call = self._call(max_tokens, stop, stop_token_ids, sampling)
        async for _ in tokens(self._run, self._state, call, each=False):
            pass
        added = self.sampled_tokens - before
        return self._run.text(self._state.live.sampled[len(self._state.live.sampled) - added :]) if added else ""

    async def stream(
        self,
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        stop_token_ids: Sequence[int] = (),
        **sampling: Any,
    ) -> AsyncGenerator[Token, None]:
        """`sample`, token by token. The thread has the tokens that were read; leaving the loop ends the call."""
        call = self._call(max_tokens, stop, stop_token_ids, sampling)
        text = TextStream(self._run.engine.tokenizer)
        async with aclosing(tokens(self._run, self._state, call, each=True)) as deltas:
            async for delta in deltas:
                top = delta.top_logprobs[0] if delta.top_logprobs else {}
                yield Token(delta.ids[0], text.add(delta.ids), delta.logprobs[0], top)

    def write(self, text: Text) -> None:
        """Write a text, or token ids, into the thread: tokens of the program's, not the model's."""
        self._run.write(self._state, self._ids(text))

    def take_back(self, tokens: int) -> None:
        """Take back the newest tokens, as if they had not been there; none older than its start or its newest join."""
        self._run.take_back(self._state, tokens)

    def fork(self, headers: Sequence[Text] | int, *, shares_prefix: bool = True) -> "ProgramThreads":
        """Fork into children, for which this thread waits until it joins them.

        Args:
            headers: what each begins with, a text or token ids; or how many there are, with nothing of their own.
            shares_prefix: whether they see what this thread sees, whose KV they share, or their own header alone.
        """
        if isinstance(headers, int):
            headers = [[]] * headers
        if isinstance(headers, str):
            raise InputError(f"fork takes a list of headers, or how many children there are, not {headers!r:.60}")
        return self._fork([self._ids(header) for header in headers], shares_prefix=shares_prefix, beside=False)

    def probe(self, text: Text, *, shares_prefix: bool = True) -> "ProgramThread":
        """Fork a thread from the tokens that are there so far, beside which this one goes on, or samples already.

        `join` it by ``message`` if this thread waited for it, so that it counts on the critical path.

        Args:
            text: what it begins with, a text or token ids; what asks for an answer, most often.
            shares_prefix: as of `fork`.
        """
        return self._fork([self._ids(text)], shares_prefix=shares_prefix, beside=True)[0]

    def join(
        self, children: "Sequence[ProgramThread] | ProgramThread", rule: JoinRule = "message", text: Text | None = None
    ) -> None:
        """Join children, and go on; those that it forked and does not join are cancelled if they still sample.

        Args:
            children: in the order in which they are joined. The first two rules leave out those that sampled nothing,
                were cancelled or failed.
            rule: ``graft``: it sees what every child wrote, beside one another, and nothing is computed again;
                ``relinearise``: it sees them as if it had written them one after another; ``message``: it sees nothing
                of them but ``text``.
            text: what is written then; for a graft that has none, a line break.
        """
        if isinstance(children, ProgramThread):
            children = [children]
        if text is None:
            text = "\n" if rule == "graft" else []
        join(self._run, self._state, [child._state for child in children], rule, self._ids(text))

    async def score(self, text: Text) -> float:
        """The log-probability of a text as what comes next; the thread stays as it is.

        Minus infinity if the thread was cancelled or failed.
        """
        return sum(await self.scores(text))

    async def scores(self, text: Text) -> list[float]:
        """The log-probability of every token of a text as what comes next, [tokens]."""
        return await self._run.score(self._state, self._ids(text))

    async def ask(
        self,
        messages: Prompt,
        max_tokens: int | None = None,
        *,
        chat: ChatOptions | dict[str, Any] | None = None,
        stop: str | Sequence[str] = (),
        stop_token_ids: Sequence[int] = (),
        **sampling: Any,
    ) -> str:
        """Ask the model anew: a thread that sees nothing but chat messages, and what it answers.

        Args:
            messages: chat messages; a text, which is one of the user; or token ids, which are sent as they are.
            chat: how the model's chat template is applied.
        """
        options = None if chat is None else ChatOptions.from_caller("chat", chat)
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        prompt = render(messages, self._run.engine, self._run.limits, chat=options)
        child = self._fork([prompt.ids], shares_prefix=False, beside=True)[0]
        answer = await child.sample(max_tokens, stop=stop, stop_token_ids=stop_token_ids, **sampling)
        self.join([child], "message")
        return answer.strip()

    def cancel(self, reason: str = "cancelled by the program") -> None:
        """End it now, with all below it; what it wrote is kept, and its KV is free."""
        self._run.stop([self._state], reason)

    def finish(self, answer: str | None) -> None:
        """Set its answer; that of the root is the answer of the trace."""
        self._state.answer = answer

    def __repr__(self) -> str:
        return f"<thread {self.label}: {self.status or 'goes on'}, {self.sampled_tokens} tokens>"

    def _fork(self, headers: list[list[int]], *, shares_prefix: bool, beside: bool) -> "ProgramThreads":
        if not shares_prefix and not all(headers):
            raise InputError("a thread that shares no prefix needs a header to begin with")
        self._run.check(self._state, busy=beside, waiting=True)
        states = self._run.fork(self._state, headers, shares_prefix=shares_prefix, beside=beside)
        return ProgramThreads([ProgramThread(self._run, state) for state in states])

    def _ids(self, text: Text) -> list[int]:
        """A text as token ids; token ids, checked."""
        engine = self._run.engine
        if isinstance(text, str):
            return encoded(text, engine, add_special_tokens=False) if text else []
        ids = [int(token) for token in text]
        wrong = next((token for token in ids if not 0 <= token < engine.vocabulary), None)
        if wrong is not None:
            raise InputError(f"token id {wrong} is outside the vocabulary of {engine.model}")
        return ids

    def _call(
        self, max_tokens: int | None, stop: str | Sequence[str], stop_token_ids: Sequence[int], fields: dict[str, Any]
    ) -> Call:
        thread = self._run.sampling.of(self.label)
        return Call.of(thread, self._run.engine, max_tokens, stop, stop_token_ids, fields)


def started_by(program: Program) -> Callable[[ProgramRun], Awaitable[Any]]:
    """What a run calls to start a program on its root."""

    async def start(run: ProgramRun) -> Any:
        made = program(ProgramThread(run, run.main))
        if not isinstance(made, Awaitable):
            raise InputError(f"a program is an async function; {program!r:.60} returned {made!r:.40}")
        return await made

    return start


async def one_answer(thread: ProgramThread) -> str:
    """The program that samples to the end of text."""
    return await thread.sample()


class ProgramThreads(Sequence[ProgramThread]):
    """Several threads, on which every verb works at once."""

    def __init__(self, threads: Sequence[ProgramThread]) -> None:
        """These, in this order."""
        self._threads = list(threads)

    def __len__(self) -> int:
        return len(self._threads)

    @overload
    def __getitem__(self, place: int) -> ProgramThread: ...
    @overload
    def __getitem__(self, place: slice) -> "ProgramThreads": ...
    def __getitem__(self, place: int | slice) -> "ProgramThread | ProgramThreads":
        if isinstance(place, slice):
            return ProgramThreads(self._threads[place])
        return self._threads[place]

    def __iter__(self) -> Iterator[ProgramThread]:
        return iter(self._threads)

    def __repr__(self) -> str:
        return f"<threads {', '.join(map(repr, self._threads))}>"

    @property
    def running(self) -> "ProgramThreads":
        """Those that have not ended."""
        return ProgramThreads([thread for thread in self._threads if not thread.ended])

    @property
    def texts(self) -> list[str]:
        """What each sampled."""
        return [thread.text for thread in self._threads]

    async def sample(self, max_tokens: int | None = None, **options: Any) -> list[str]:
        """`ProgramThread.sample` of all at once: the text that each added."""
        return await asyncio.gather(*(thread.sample(max_tokens, **options) for thread in self._threads))

    async def score(self, text: Text) -> list[float]:
        """`ProgramThread.score` of all at once."""
        return await asyncio.gather(*(thread.score(text) for thread in self._threads))

    def write(self, text: Text) -> None:
        """Write the same into all."""
        for thread in self._threads:
            thread.write(text)

    def probe(self, text: Text) -> "ProgramThreads":
        """A probe of each."""
        return ProgramThreads([thread.probe(text) for thread in self._threads])

    def cancel(self, reason: str = "cancelled by the program") -> None:
        """Cancel all."""
        for thread in self._threads:
            thread.cancel(reason)

    async def as_completed(self, max_tokens: int | None = None, **options: Any) -> AsyncGenerator[ProgramThread, None]:
        """Sample all at once, and yield each as its call ends; leaving the loop ends the calls of the others."""
        tasks = {asyncio.ensure_future(one.sample(max_tokens, **options)): one for one in self._threads}
        try:
            left = set(tasks)
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=list(tasks).index):
                    task.result()
                    yield tasks[task]
        finally:
            for task in tasks:
                task.cancel()

    async def first(self, count: int, max_tokens: int | None = None, **options: Any) -> "ProgramThreads":
        """Sample all at once until so many calls have ended: their threads, in that order. The others are cancelled."""
        done: list[ProgramThread] = []
        if count > 0:
            async for thread in self.as_completed(max_tokens, **options):
                done.append(thread)
                if len(done) >= count:
                    break
        ProgramThreads([thread for thread in self._threads if thread not in done]).cancel("others were sooner")
        return ProgramThreads(done)
