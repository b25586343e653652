"""Rollouts as TRL's ``AsyncGRPOTrainer`` takes them: its ``RolloutWorkerProtocol`` over a `RolloutSource`.

For dialects without a graft, since TRL's rows are causal texts. A rollout gives several rows, one a thread, which share
its advantage and its ``group_id``. Groups are sampled in a thread of their own, each with the newest weights it finds.
"""

import queue
import threading
import time
from typing import Any

import numpy as np
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from parallel_reason import EngineError, Trace
from rl.objectives import Objective
from rl.plain_rows import plain_rows
from rl.rollouts import Rollout, RolloutSource, figures, weigh


class RolloutWorker:
    """Samples groups and queues their rows until it is stopped.

    Attributes:
        rollout_buffer: rows for the trainer, whole groups one after another; sampling waits while it is full.
        metrics_queue: figures of every group.
    """

    def __init__(self, source: RolloutSource, objective: Objective, *, rows_ahead: int = 1024) -> None:
        """Nothing is sampled yet.

        Args:
            objective: gives the advantages; the loss is the trainer's.
            rows_ahead: rows that may wait in the buffer before sampling pauses.
        """
        self.rollout_buffer: queue.Queue[RolloutSample] = queue.Queue()
        self.metrics_queue: queue.Queue[dict[str, float]] = queue.Queue()
        self._source = source
        self._objective = objective
        self._rows_ahead = rows_ahead
        self._version = 0
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._alive_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the group that is being sampled."""
        self._stopped.set()
        self._thread.join()

    def update_model_version(self, model_version: int) -> None:
        """Rows of groups that start from now on have this version."""
        self._version = model_version

    def check_health(self, stale_after_s: float) -> None:
        """Raise EngineError if sampling failed, or gave nothing for so many seconds although it should."""
        if self._error is not None:
            raise EngineError(f"rollouts failed: {self._error}") from self._error
        silent = time.monotonic() - self._alive_at
        if self._thread.is_alive() and not self._full() and silent > stale_after_s:
            raise EngineError(f"there was no rollout for {silent:.0f} s")

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            if self._full():
                self._alive_at = time.monotonic()
                self._stopped.wait(0.05)
                continue
            version = self._version
            try:
                groups = self._source.sample(number, 1)
                rows = self._rows(groups, number, version)
            except Exception as error:  # whatever it is, check_health reports it to the trainer
                self._error = error
                return
            for row in rows:
                self.rollout_buffer.put(row)
            self.metrics_queue.put(figures(groups))
            self._alive_at = time.monotonic()
            number += 1

    def _full(self) -> bool:
        return self.rollout_buffer.qsize() >= self._rows_ahead

    def _rows(self, groups: list[list[Rollout]], group: int, version: int) -> list[RolloutSample]:
        """The rows of one group."""
        weighed = weigh(self._objective, groups)
        kept = zip(groups[0], weighed.advantages[0].tolist(), weighed.kept[0].tolist(), strict=True)
        return [
            row
            for rollout, advantage, counts in kept
            if counts
            for row in _samples(rollout.trace, advantage, group, version, {"reward": rollout.reward})
        ]


def _samples(trace: Trace, advantage: float, group: int, version: int, metrics: dict[str, Any]) -> list[RolloutSample]:
    prompt = trace.messages or [{"role": "user", "content": trace.prompt}]
    return [
        RolloutSample(
            prompt=prompt,
            completion=[{"role": "assistant", "content": trace.thread(row.label).text}],
            input_ids=np.array(row.ids, dtype=np.int64),
            completion_mask=np.array(row.trained, dtype=np.int64),
            old_log_probs=np.array(row.logprobs, dtype=np.float32),
            advantage=advantage,
            model_version=version,
            group_id=group,
            metrics=metrics,
            enqueued_at=time.time(),
        )
        for row in plain_rows(trace)
    ]
