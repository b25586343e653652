"""Joins that recompute nothing, on a vLLM that nobody has changed; docs/graft.md shows how.

What runs where:

- `facts`, `pins`: in our process. What a request must tell vLLM of the KV it begins with, and who holds which KV.
- `connector` with `keeper`: in vLLM's scheduler. Pinned blocks, and which of them a request begins with.
- `connector` with `copier`, and `positions`: in vLLM's workers. Tokens' KV copied, and rotary positions.
- `compat`: all that differs between versions and devices.
"""

CONNECTOR = "parallel_reason.engines.vllm_graft.connector"
