"""How many tokens a thread may sample next, and which bound of `Limits` says so."""

from parallel_reason.limits import Limits


class Budget:
    """The token bounds of one trace.

    Bounds on a chain of threads are exact by themselves. The bound on all tokens is shared by threads that run at once,
    so a thread is granted a part of what is left, and returns what it did not use: the sum can never pass the bound.
    """

    def __init__(self, limits: Limits, window: int) -> None:
        """``window`` is the model's own context length in tokens."""
        self.limits = limits
        self.context = min(window, limits.context or window)
        self.decoding = 1  # threads that will still sample, a parent that waits for its children left out
        self._left = limits.tokens

    def grant(self, context: int, sampled: int, critical_path: int) -> tuple[int, str]:
        """Take tokens for a thread that sees ``context`` tokens, sampled ``sampled``, at the end of ``critical_path``.

        Returns:
            How many it may sample now, and the bound that will stop it there; 0 if a bound is reached.
        """
        bounds = [(self.context - context, f"limits.context={self.context}")]
        if self.limits.tokens_per_thread is not None:
            bounds.append((self.limits.tokens_per_thread - sampled, self.limits.name("tokens_per_thread")))
        if self.limits.critical_path_tokens is not None:
            left = self.limits.critical_path_tokens - critical_path
            bounds.append((left, self.limits.name("critical_path_tokens")))
        if self._left is not None:
            share = min(self._left, max(1, self._left // self.decoding))
            bounds.append((share, self.limits.name("tokens")))
        tokens, bound = min(bounds)
        tokens = max(0, tokens)
        if self._left is not None:
            self._left -= tokens
        return tokens, bound

    def refund(self, tokens: int) -> None:
        """Return the part of a grant that was not sampled."""
        if self._left is not None:
            self._left += tokens
