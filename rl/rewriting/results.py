"""What a run of rewriting writes: traces that were kept, why others were not, and a summary."""

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from parallel_reason import Ledger, Trace, TraceWriter, aggregate
from rl.rewriting.stage import RejectionError

KEPT, REJECTED, SUMMARY = "kept.jsonl", "rejected.jsonl", "summary.json"


class Results:
    """Results of samples as they come, in files that end in ``.unfinished`` until the run has come to its end.

    Attributes:
        rejected, unfinished: how many samples, by reason; those on which an engine failed can be tried again.
    """

    def __init__(self, out: Path) -> None:
        """Begin with none: replies of an earlier run give its results again.

        Raises:
            InputError: the files cannot be written.
        """
        self.rejected: Counter[str] = Counter()
        self.unfinished: Counter[str] = Counter()
        self._out = out
        self._ledgers: list[Ledger] = []
        for name in (KEPT, REJECTED):
            (out / f"{name}.unfinished").unlink(missing_ok=True)
        self._traces = TraceWriter(out / f"{KEPT}.unfinished")
        self._reasons = (out / f"{REJECTED}.unfinished").open("w", encoding="utf-8")

    @property
    def kept(self) -> int:
        """How many traces."""
        return len(self._ledgers)

    def keep(self, trace: Trace) -> None:
        """A trace that is worth training on."""
        self._traces.write(trace)
        self._ledgers.append(trace.ledger)

    def reject(self, name: str, error: RejectionError) -> None:
        """Why the sample of this id has no trace."""
        self._reasons.write(json.dumps({"id": name, "reason": error.reason, "detail": error.detail}) + "\n")
        self.rejected[error.reason] += 1

    def summary(self, usage: dict[str, int], refused: Counter[str]) -> dict[str, Any]:
        """All counts, which are written to a file too.

        Args:
            usage: requests and tokens of all replies.
            refused: replies that could not be used, by stage and reason.
        """
        total = aggregate(self._ledgers)
        found = {
            "kept": self.kept,
            "rejected": dict(self.rejected.most_common()),
            "unfinished": dict(self.unfinished.most_common()),
            "usage": usage,
            "refused_replies": dict(refused.most_common()),
            "forks": sum(ledger.forks for ledger in self._ledgers),
            "acceleration_of_sums": total.acceleration_of_sums if self._ledgers else None,
        }
        unfinished = self._out / f"{SUMMARY}.unfinished"
        unfinished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self._out / SUMMARY)
        return found

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._traces.close()
        self._reasons.close()
        for name in (KEPT, REJECTED) if error is None else ():
            (self._out / f"{name}.unfinished").replace(self._out / name)
