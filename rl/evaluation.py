"""Evaluation by real generation while a model trains."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from parallel_reason import ParallelLLM
from parallel_reason.tasks import find
from rl.rollouts import figures, verified
from rl.sft_config import Evaluation
from rl.weights import FolderTransfer

Weights = Callable[[Any], Iterator[tuple[str, Tensor]]]
Log = Callable[[dict[str, float]], None]


class EvaluationCallback(TrainerCallback):  # type: ignore[misc]
    """Solves problems of a task with the newest weights, every so many steps and at the end, and logs the figures."""

    def __init__(
        self, llm: ParallelLLM, evaluation: Evaluation, transfer: FolderTransfer, weights: Weights, log: Log
    ) -> None:
        """On an engine that has a model of the same shape.

        Args:
            transfer: takes weights to that engine.
            weights: the named weights of the model that is trained, adapters merged.
            log: that of the trainer.
        """
        self._llm = llm
        self._evaluation = evaluation
        self._task = find(evaluation.task)
        self._problems = self._task.test(evaluation.problems)
        self._transfer = transfer
        self._weights = weights
        self._log = log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Evaluate, if it is time."""
        if state.global_step % self._evaluation.every and state.global_step != state.max_steps:
            return
        self._transfer.send_weights(self._weights(model))
        evaluation = self._evaluation
        traces = self._llm.generate(
            [problem.text for problem in self._problems],
            evaluation.sampling,
            evaluation.limits,
            prompt=evaluation.prompt,
        )
        groups = verified(self._task, [], self._problems, traces)
        model.eval()  # what is logged in training counts as training
        self._log({f"eval_{name}": value for name, value in figures(groups).items()})
        model.train()
