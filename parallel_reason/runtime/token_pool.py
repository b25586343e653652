"""How the bound of all tokens of one trace is dealt among the calls of a program, which begin whenever it likes.

Calls that begin at once get equal parts, once all of them are ready to sample; one part is left for those that come
later. A call that has used up its part waits until every other one has ended or waits too; then they are dealt what is
left. So nothing is wasted, the sum never passes the bound, and no timing changes what calls that begin together may do.
A call waits only for calls that run on the engine, so none waits for ever.
"""

import asyncio

from parallel_reason.runtime.budget import even


class TokenPool:
    """What all threads of a program may still sample."""

    def __init__(self, tokens: int | None) -> None:
        """``tokens`` in all; None is no bound."""
        self.left = tokens
        self._begun = 0  # calls that did not ask yet
        self._running = 0
        self._new: list[tuple[TokenShare, int]] = []
        self._waiting: list[tuple[TokenShare, int]] = []

    def share(self) -> "TokenShare":
        """For a call that begins; close it when the call has ended."""
        self._begun += 1
        return TokenShare(self)

    def add(self, share: "TokenShare", most: int, *, new: bool) -> None:
        """A share asks."""
        if new:
            self._new.append((share, most))
            self.asked()
        else:
            self._running -= 1
            self._waiting.append((share, most))
            self.deal()

    def asked(self) -> None:
        """A call that had started has asked, or ended."""
        self._begun -= 1
        if self._begun == 0:
            self._deal_new()

    def ended(self) -> None:
        """A call that ran has ended."""
        self._running -= 1
        self.deal()

    def deal(self) -> None:
        """If no call runs, deal all that is left among those who wait."""
        if self._running or self._new:
            return
        asking = [(share, most) for share, most in self._waiting if share.waits]
        self._waiting = []
        for (share, most), part in zip(asking, even(self.left or 0, len(asking)), strict=True):
            self._grant(share, min(most, part))

    def _deal_new(self) -> None:
        asking, self._new = [(share, most) for share, most in self._new if share.waits], []
        part = (self.left or 0) // (len(asking) + 1)
        for share, most in asking:
            if part:
                self._grant(share, min(most, part))
            else:
                self._waiting.append((share, most))
        self.deal()

    def _grant(self, share: "TokenShare", tokens: int) -> None:
        if self.left is not None:
            self.left -= tokens
        self._running += tokens > 0
        share.grant(tokens)


class TokenShare:
    """What one call may sample."""

    def __init__(self, pool: TokenPool) -> None:
        """Nothing yet."""
        self._pool = pool
        self._granted = 0
        self._asked = False
        self._dealt: asyncio.Future[int] | None = None

    @property
    def waits(self) -> bool:
        """Whether it asked and was not answered."""
        return self._dealt is not None and not self._dealt.done()

    async def ask(self, most: int) -> int:
        """How many tokens it may sample now, ``most`` at most; 0 if none are left in the whole trace."""
        if self._pool.left is None:
            return most
        new, self._asked, self._granted = not self._asked, True, 0
        self._dealt = asyncio.get_running_loop().create_future()
        self._pool.add(self, most, new=new)
        return await self._dealt

    def grant(self, tokens: int) -> None:
        """Answer it."""
        assert self._dealt is not None
        self._granted = tokens
        self._dealt.set_result(tokens)

    def withdraw(self) -> None:
        """If it waits, it gets none."""
        if self.waits:
            self.grant(0)

    def give_back(self, tokens: int) -> None:
        """Of what it was granted last, so many were not sampled."""
        if self._pool.left is not None:
            self._pool.left += tokens

    def close(self) -> None:
        """The call has ended."""
        if not self._asked:
            self._asked = True
            self._pool.asked()
        elif self._granted:
            self._granted = 0
            self._pool.ended()
