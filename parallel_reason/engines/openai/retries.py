"""How often a request is tried again, and how long it waits before."""

from collections.abc import Collection
from dataclasses import dataclass

from parallel_reason.engines.openai.failures import NoAnswerError

BACKOFF_S = (0.5, 8.0)  # before the second round, doubling, and at most


@dataclass(slots=True)
class Retries:
    """Of one request.

    Attributes:
        most: further rounds over the servers after one in which none was busy.
        busy_timeout_s: seconds to wait, all rounds together, for servers that are busy.
        rounds: made so far.
    """

    most: int
    busy_timeout_s: float
    rounds: int = 0
    _failed: int = 0
    _waited_s: float = 0.0

    def wait_s(self, refusals: Collection[NoAnswerError]) -> float | None:
        """Seconds until the next round after one in which every server refused; None to give up."""
        self.rounds += 1
        backoff_s = min(BACKOFF_S[0] * 2 ** min(self.rounds - 1, 10), BACKOFF_S[1])
        busy = [refusal for refusal in refusals if refusal.busy]
        if not busy:
            self._failed += 1
            return backoff_s if self._failed <= self.most else None
        # A server that asks for no time at all must not be asked again and again at once.
        asked_s = min(backoff_s if one.retry_after_s is None else one.retry_after_s for one in busy)
        wait_s = max(asked_s, BACKOFF_S[0])
        self._waited_s += wait_s
        return wait_s if self._waited_s <= self.busy_timeout_s else None

    def __str__(self) -> str:
        """How often it was tried, as a part of a sentence."""
        return "after one try" if self.rounds == 1 else f"after {self.rounds} tries"
