"""An engine beside plain transformers, and a short way to write a request."""

import asyncio
import contextlib

import numpy as np
import pytest
import torch
import transformers

from parallel_reason.engines.base import EngineRequest
from parallel_reason.sampling import SamplingParams


class House:
    """An engine on an event loop of its own, and the same model under plain transformers."""

    def __init__(self, folder, start):
        """``start`` is a coroutine that gives the engine."""
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.engine = self.run(start)
        self.plain = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )

    def reference(self, ids, positions=None, mask=None):
        """Log-probs after every token, [tokens, vocabulary].

        Causal, and one position after the other, but for the first tokens: those that have ``positions``, and a
        ``mask`` among themselves.
        """
        count = len(ids)
        places = list(positions or [0])
        places += range(places[-1] + 1, places[-1] + 1 + count - len(places))
        seen = torch.ones(count, count, dtype=torch.bool).tril()
        if mask is not None:
            seen[: len(mask), : len(mask)] &= mask
        with torch.no_grad():
            logits = self.plain(
                input_ids=torch.tensor([ids]),
                position_ids=torch.tensor([places]),
                attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None],
                use_cache=False,
            ).logits[0]
        return logits.log_softmax(-1)

    def check(self, ids, output, positions=None, mask=None, *, drawn=False):
        """``output`` has the log-probs of transformers after ``ids``; and its first choices, unless it was drawn."""
        assert output.ids
        every = self.reference(ids + output.ids, positions, mask)[len(ids) - 1 : -1]
        assert drawn or every.argmax(-1).tolist() == output.ids
        chosen = every.gather(1, torch.tensor(output.ids)[:, None])[:, 0]
        np.testing.assert_allclose(output.logprobs, chosen, atol=1e-4)

    def all(self, *requests):
        """The outputs of requests that run together."""

        async def together():
            return await asyncio.gather(*(self.engine.generate(request) for request in requests))

        return self.run(together())

    def close(self):
        self.run(self.engine.close())
        self.runner.close()


def ask(name, ids, tokens, *, stop=(), **options):
    """A request with the id ``name``, for at most ``tokens`` new tokens.

    ``options`` are fields of `EngineRequest`, and of its `SamplingParams`.
    """
    own = {field: options.pop(field) for field in (options.keys() - {"seed"}) & SamplingParams.model_fields.keys()}
    return EngineRequest(name, list(ids), tokens, sampling=SamplingParams(**own), stop_ids=frozenset(stop), **options)


def preemptions():
    """How many requests vLLM has preempted, on the engine that was started last with ``disable_log_stats=False``."""
    from vllm.v1.metrics.reader import get_metrics_snapshot

    return sum(metric.value for metric in get_metrics_snapshot() if metric.name == "vllm:num_preemptions")


@contextlib.contextmanager
def scheduling_ahead():
    """Engines that are started meanwhile schedule a step ahead of the one that runs, which vLLM turns off on CPUs."""
    from vllm.platforms.cpu import CpuPlatform

    def check(cls, config):
        before(config)
        config.scheduler_config.async_scheduling = True

    before = CpuPlatform.check_and_update_config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", classmethod(check))
        yield
