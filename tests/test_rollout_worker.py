"""The rollout worker and the weight transfer as TRL's asynchronous trainer uses them."""

import inspect
import time
from collections import defaultdict
from itertools import islice

import pytest
import torch
from accelerate import PartialState
from trl.experimental.async_grpo import async_grpo_trainer as theirs

from parallel_reason import EngineError, Limits, ParallelLLM, SamplingParams
from parallel_reason.tasks import find
from rl.objectives import OBJECTIVES
from rl.rewards import Correctness, TotalTokens
from rl.rollout_worker import RolloutWorker
from rl.rollouts import RolloutSource
from rl.weights import FolderTransfer


def test_they_have_the_methods_of_trls_protocols_with_the_same_parameters():
    for ours, protocol in (
        (RolloutWorker, theirs.RolloutWorkerProtocol),
        (FolderTransfer, theirs.WeightTransferProtocol),
    ):
        methods = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
        for name, member in methods.items():
            if not name.startswith("_"):
                wanted = list(inspect.signature(member).parameters)
                assert list(inspect.signature(getattr(ours, name)).parameters) == wanted, name
        for attribute in getattr(protocol, "__annotations__", {}):
            assert attribute in inspect.getsource(ours.__init__)


@pytest.fixture(scope="module")
def llm():
    with ParallelLLM(engine="torch", limits=Limits(children=2)) as llm:
        yield llm


def source(llm, **changes):
    parts = [Correctness(), TotalTokens(cost=1, of="all")]
    options = {"task": find("countdown"), "limits": Limits(children=2), "parts": parts}
    return RolloutSource(llm, sampling=SamplingParams(temperature=2.0, n=3, seed=0), **options | changes)


def test_trls_own_queue_reads_its_rows_and_every_sampled_token_is_trained_once(llm):
    worker = RolloutWorker(source(llm), OBJECTIVES["p_grpo"](), rows_ahead=1)
    worker.update_model_version(4)
    worker.start()
    PartialState()  # its logger asks for it
    data = theirs.RolloutQueueDataset(
        worker.rollout_buffer, lambda: 4, max_staleness=0, check_health_fn=worker.check_health, stale_after_s=300.0,
        poll_interval_s=0.1, metrics=defaultdict(list),
    )  # fmt: skip
    rows = list(islice(data, 9))  # three rollouts of three threads
    worker.stop()
    assert {row["group_id"] for row in rows} == {0}
    for row in rows:
        assert len(row["input_ids"]) == len(row["completion_mask"]) == len(row["old_log_probs"])
        assert torch.isfinite(torch.tensor(row["old_log_probs"])).all()
    sampled = 3 * worker.metrics_queue.get_nowait()["sampled_tokens"]
    assert sum(int(row["completion_mask"].sum()) for row in rows) == round(sampled)
    mean = sum(row["metrics"]["reward"] for row in rows) / len(rows)  # as many rows of each rollout
    assert len({row["metrics"]["reward"] for row in rows}) > 1
    for row in rows:
        assert row["advantage"] == pytest.approx(row["metrics"]["reward"] - mean, abs=1e-6)


def test_a_source_that_fails_is_reported_and_one_that_waits_for_room_is_well(llm):
    class Failing:
        sampling = SamplingParams(temperature=1.0, n=2)

        def sample(self, batch, groups):
            raise OSError("the disk is full")

    worker = RolloutWorker(Failing(), OBJECTIVES["p_grpo"]())
    worker.start()
    worker.stop()
    with pytest.raises(EngineError, match="rollouts failed: the disk is full"):
        worker.check_health(300)
    waiting = RolloutWorker(source(llm), OBJECTIVES["p_grpo"](), rows_ahead=0)
    waiting.start()
    time.sleep(0.2)
    waiting.check_health(0.1)
    waiting.stop()
    assert waiting.rollout_buffer.empty()
