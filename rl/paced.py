"""Rollouts ahead of the learner. How stale they may be is bounded by pacing: nothing is sampled and thrown away.

The rule is one of capacity: while the learner asks for batch b, batches up to b + staleness may be under way, whole
groups each. So the weights that sampled a batch are at most that many updates older than those that train on it; an
engine that takes new weights goes on with them, and every span has the version of its own.
"""

from concurrent.futures import Future, ThreadPoolExecutor

from rl.rollouts import Rollout, RolloutSource


class PacedSource:
    """A `RolloutSource` that samples further batches while the learner trains.

    Attributes:
        sampling, staleness: as of `RolloutSource`.
    """

    def __init__(self, source: RolloutSource, staleness: int, batches: int) -> None:
        """Nothing is sampled yet; ``batches`` is how many there are in all."""
        self.sampling = source.sampling
        self.staleness = staleness
        self._source = source
        self._batches = batches
        self._threads = ThreadPoolExecutor(staleness + 1, "rollouts")
        self._ahead: dict[int, Future[list[list[Rollout]]]] = {}
        self._next = 0

    def sample(self, batch: int, groups: int) -> list[list[Rollout]]:
        """A batch, [groups, rollouts], waiting for what is missing of it; the next ones are begun."""
        for number in range(max(batch, self._next), min(batch + self.staleness + 1, self._batches)):
            problems = self._source.problems(number, groups)
            self._ahead[number] = self._threads.submit(self._source.run, number, problems)
            self._next = number + 1
        return self._ahead.pop(batch).result()
