"""A logits processor that ends vLLM's engine core: at a request whose ``top_k`` is `FATAL`."""

from vllm.v1.sample.logits_processor import LogitsProcessor

FATAL = 7


class FailingProcessor(LogitsProcessor):
    def __init__(self, vllm_config, device, is_pin_memory):
        pass

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        if batch_update and any(params.top_k == FATAL for _, params, *_ in batch_update.added):
            raise RuntimeError(f"top_k is {FATAL}")

    def apply(self, logits):
        return logits
