"""Joins that recompute nothing, on a vLLM that nobody has changed; docs/graft.md shows how.

What runs where:

- `facts`, `pins`: in our process. What a request must tell vLLM of the KV it begins with, and who holds which KV.
- `connector` with `keeper`: in vLLM's scheduler. Pinned blocks, and which of them a request begins with.
- `connector` with `copier`, and `positions`: in vLLM's workers. Tokens' KV copied, and rotary positions.
- `compat`: all that differs between versions and devices.

`register` is a ``vllm.general_plugins`` entry point: vLLM calls it in each of its processes before it loads a model. It
does nothing unless the engine was started to graft.
"""

import os

SWITCH = "PARALLEL_REASON_GRAFT"  # set in the environment of vLLM's processes
CONNECTOR = "parallel_reason.engines.vllm_graft.connector"


def register() -> None:
    """Have models loaded with positions that can be shifted."""
    if os.environ.get(SWITCH):
        from parallel_reason.engines.vllm_graft.positions import register_models

        register_models()
