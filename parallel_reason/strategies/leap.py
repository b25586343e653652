"""LeaP: paths stop now and then, sum up where they are, and read the summaries of others."""

import difflib
import itertools

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import running
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority

SUMMARISE = "\n\n<summarize> In short, "
END_OF_SUMMARY = "</summarize>"
AFTER_COMMENTS = "Hmm, it seems that my peers have given me some comments, so let me check "


@dataclass(frozen=True)
class LearningFromPeers:
    """``n`` paths; every ``every`` tokens each writes a summary and gets those of its ``peers`` least similar peers.

    LeaP (arXiv 2505.07787), dispersed routing: similarity is that of the summaries' characters. At most ``turns``
    times; a summary has ``summary_tokens`` tokens. The majority of all paths at their ends.
    """

    n: Count = 4
    every: Count = 2048
    turns: Count = 5
    peers: Count = 2
    summary_tokens: Count = 256
    name: str = "leap"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        for _ in range(self.turns):
            await branches.sample(paths, self.every)
            going = running(branches, paths)
            if not len(going):
                break
            before = {int(path): len(branches.text(path)) for path in going}
            for path in going:
                branches.write(path, SUMMARISE)
            await branches.sample(going, self.summary_tokens, stop=END_OF_SUMMARY)
            said = {path: branches.text(path)[start:].removesuffix(END_OF_SUMMARY) for path, start in before.items()}
            for path, others in routed(said, self.peers).items():
                branches.write(path, comments(others))
        await branches.sample(paths)
        return majority(branches.answers)


def routed(said: dict[int, str], peers: int) -> dict[int, list[str]]:
    """The summaries that each path gets: those of the others that are least like its own, least first."""
    likeness = {
        frozenset(pair): difflib.SequenceMatcher(None, said[pair[0]], said[pair[1]], autojunk=False).ratio()
        for pair in itertools.combinations(said, 2)
    }
    return {
        path: [
            said[other]
            for other in sorted(set(said) - {path}, key=lambda other: (likeness[frozenset((path, other))], other))
        ][:peers]
        for path in said
    }


def comments(summaries: list[str]) -> str:
    """What a path gets to read of its peers; nothing if it has none."""
    if not summaries:
        return "\n\n"
    quoted = "\n".join(f'Peer {number}: "{text.strip()}"' for number, text in enumerate(summaries, start=1))
    return f"\n<comment>\n{quoted}\n</comment>\n\n{AFTER_COMMENTS}"
