"""What a worker of vLLM is asked for beyond its own methods, as a ``worker_extension_cls``."""

import os
from typing import Any

PATH = f"{__name__}.WorkerExtension"


class WorkerExtension:
    """Added to vLLM's worker."""

    vllm_config: Any
    model_runner: Any

    def pack_tied_head(self) -> None:
        """Have the output layer use the newest weights.

        On CPUs vLLM packs a copy of its weights, and where they are those of the embedding it does not pack them again
        when it reloads: logits would be those of the new model under the old output layer.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        if self.vllm_config.model_config.hf_text_config.tie_word_embeddings:
            for module in self.model_runner.get_model().modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)

    def computes_in(self) -> str:
        """The attention that vLLM chose, and how it multiplies float32: ``TRITON_ATTN (ieee)``."""
        layers = self.vllm_config.compilation_config.static_forward_context.values()
        chosen = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
        products = os.environ.get("TRITON_F32_DEFAULT", "tf32")
        float32 = "float32" in str(self.vllm_config.model_config.dtype)
        return ", ".join(f"{name} ({products})" if float32 and "TRITON" in name else name for name in sorted(chosen))
