"""Joins that recompute nothing, on an unpatched vLLM; docs/graft.md shows how.

What runs where:

- In this process: `client` runs requests, `kv_sources` and `request` know what they begin with, `kv_references` and
  `kv_handle` count who needs which KV.
- In vLLM's scheduler: `connector` with `pinned_blocks`. Which pinned blocks a request begins with.
- In vLLM's workers: `connector` with `copier`, and `positions`. KV copied token by token, and rotary positions.
- Between them: `messages`.
- `compat`: what differs between versions and devices.
"""

CONNECTOR = "parallel_reason.engines.vllm.graft.connector"
