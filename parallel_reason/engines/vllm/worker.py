"""What a worker of vLLM is asked about itself, as a ``worker_extension_cls``."""

import os
from typing import Any

PATH = f"{__name__}.ComputesIn"


class ComputesIn:
    """Added to vLLM's worker."""

    vllm_config: Any

    def computes_in(self) -> str:
        """The attention that vLLM chose, and how it multiplies float32: ``TRITON_ATTN (ieee)``."""
        layers = self.vllm_config.compilation_config.static_forward_context.values()
        chosen = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
        products = os.environ.get("TRITON_F32_DEFAULT", "tf32")
        float32 = "float32" in str(self.vllm_config.model_config.dtype)
        return ", ".join(f"{name} ({products})" if float32 and "TRITON" in name else name for name in sorted(chosen))
