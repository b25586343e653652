"""How many tokens a thread may sample next, and which bound of `Limits`, or its own ``max_tokens``, says so.

Bounds on one chain of threads are exact by themselves. The bounds on the whole trace, of tokens and of forks, are dealt
out: a fork divides what its parent has left among the children, and a join gives the parent what they did not use. So
no timing can change what a thread may do. A child that has used up its part waits until every sibling has ended or
waits too, and they are dealt what is left; so nothing is wasted, and the sum never passes the bound.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

from parallel_reason.limits import Limits
from parallel_reason.runtime.live_thread import LiveThread
from parallel_reason.sampling import SamplingParams

Bound = Literal["tokens", "forks"]


@dataclass(slots=True)
class Allotment:
    """What a thread, with all below it, may still use of the bounds on the whole trace; None means no bound."""

    tokens: int | None
    forks: int


def next_tokens(
    thread: LiveThread, left: Allotment, limits: Limits, window: int, sampling: SamplingParams
) -> tuple[int, str]:
    """How many tokens a thread may sample now, and the bound that will stop it there; 0 if a bound is reached.

    Args:
        sampling: of the thread.
        window: the model's own context length, or that of ``limits`` if it is shorter, in tokens.
    """
    bounds = [(window - len(thread.view), f"limits.context={window}")]
    if limits.tokens_per_thread is not None:
        bounds.append((limits.tokens_per_thread - thread.drawn, limits.name("tokens_per_thread")))
    if sampling.max_tokens is not None:
        bounds.append((sampling.max_tokens - thread.drawn, sampling.name("max_tokens")))
    if limits.critical_path_tokens is not None:
        bounds.append((limits.critical_path_tokens - thread.critical_path, limits.name("critical_path_tokens")))
    if left.tokens is not None:
        bounds.append((left.tokens, limits.name("tokens")))
    tokens, bound = min(bounds)
    return max(0, tokens), bound


class DealtAllotments:
    """What the children of one fork may use.

    Attributes:
        each: of every child, in their order.
    """

    def __init__(self, total: Allotment, children: int) -> None:
        """Deal ``total`` out evenly; the first children get what is over."""
        tokens = [None] * children if total.tokens is None else even(total.tokens, children)
        forks = even(total.forks, children)
        self.each = [Allotment(*both) for both in zip(tokens, forks, strict=True)]
        self._ended: set[int] = set()
        self._waiting: dict[int, tuple[Bound, asyncio.Future[bool]]] = {}

    async def more(self, child: int, bound: Bound) -> bool:
        """Wait for more of a bound that a child has used up; whether it got any."""
        dealt: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[child] = (bound, dealt)
        self._deal()
        try:
            return await dealt
        finally:
            self._waiting.pop(child, None)

    def withdraw(self, child: int) -> None:
        """If a child waits for more, it gets none."""
        if child in self._waiting:
            _, dealt = self._waiting.pop(child)
            if not dealt.done():
                dealt.set_result(False)

    def end(self, child: int) -> None:
        """A child has ended; its siblings may be dealt what it has left."""
        self._ended.add(child)
        self._deal()

    def rest(self) -> Allotment:
        """What is left of all together, and taken from them."""
        tokens = [one.tokens for one in self.each]
        left = None if None in tokens else sum(count or 0 for count in tokens)
        total = Allotment(left, sum(one.forks for one in self.each))
        for one in self.each:
            one.tokens, one.forks = None if one.tokens is None else 0, 0
        return total

    def _deal(self) -> None:
        """Once every child has ended or waits, deal what the ended ones left among those who wait."""
        waiting = {child: wait for child, wait in sorted(self._waiting.items()) if not wait[1].done()}
        if len(waiting) + len(self._ended - set(waiting)) < len(self.each):
            return
        bounds: tuple[Bound, ...] = ("tokens", "forks")
        for bound in bounds:
            asking = [(child, dealt) for child, (of, dealt) in waiting.items() if of == bound]
            left = sum(getattr(self.each[child], bound) or 0 for child in self._ended)
            if asking and left:
                for child in self._ended:
                    setattr(self.each[child], bound, 0)
                for (child, dealt), part in zip(asking, even(left, len(asking)), strict=True):
                    if part:
                        setattr(self.each[child], bound, part)
                        dealt.set_result(True)
                return
        for _, dealt in waiting.values():
            dealt.set_result(False)


def even(total: int, parts: int) -> list[int]:
    """A total in equal parts, the first ones larger by one where it does not divide."""
    return [total // parts + (number < total % parts) for number in range(parts)]
