"""One chain of thought: the baseline of every other strategy."""

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches


@dataclass(frozen=True)
class Single:
    """One path to its end."""

    name: str = "single"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(1)
        await branches.sample(paths)
        return int(branches.answers[0])
