"""vLLM in this process: threads are requests of one ``AsyncLLM``, batched continuously."""

from parallel_reason.engines.vllm.engine import VllmEngine as VllmEngine
