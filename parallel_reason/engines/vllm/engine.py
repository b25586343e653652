"""The vLLM engine: an in-process ``AsyncLLM`` that batches the threads of all traces continuously.

Forks cost what vLLM's prefix cache leaves to compute: children are requests that begin with their parent's tokens, and
every full block of these is shared. An engine that was started to graft keeps and hands out KV (`vllm_graft`), and
then neither forks nor joins compute anything again. Log-probs are vLLM's ``raw_logprobs``: of the model at
temperature 1.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_reason.engines.base import Capabilities, Decode, Decoded, OnTokens
from parallel_reason.engines.folder import check_model
from parallel_reason.engines.vllm_graft import compat
from parallel_reason.engines.vllm_graft.facts import Facts
from parallel_reason.engines.vllm_graft.joins import Joins
from parallel_reason.engines.vllm_graft.pins import Pins
from parallel_reason.engines.vllm_process import last_error, starting
from parallel_reason.errors import EngineError, InputError, first_line
from parallel_reason.memory import Memory

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_SILENT = 1 << 30  # tokens between two outputs of a request that nobody watches: its first token and its end remain
FREEING = 50  # looks, 10 ms apart, until KV counts as held
CLOSE_S = 20  # seconds that vLLM's processes get to end before they are killed


class VllmEngine:
    """One model on vLLM. Make it with `start`."""

    name = "vllm"

    def __init__(self, llm: "AsyncLLM", model: str, log: Path, graft: bool = False) -> None:
        """Wrap a running AsyncLLM whose processes write to ``log``; it was started with `compat.options`, or not."""
        self.llm = llm
        self.capabilities = Capabilities(fork=True, graft=graft, concurrent=True, update_weights=True)
        self.joins = Joins(self._ask, Pins(self._send)) if graft else None
        self._log = log
        self._live: set[str] = set()
        self._unwanted: set[str] = set()
        self.model = model
        self.tokenizer: Any = llm.get_tokenizer()
        # With a graft, KV of a whole context is computed by a request that samples one token more.
        self.context: int = llm.model_config.max_model_len - int(graft)
        self.vocabulary: int = llm.model_config.get_vocab_size()
        cache = llm.vllm_config.cache_config
        self.memory = Memory(cache.num_gpu_blocks - 1, cache.block_size)  # vLLM keeps one for itself
        self.eos_ids = frozenset(_eos_ids(llm, self.tokenizer))

    @classmethod
    async def start(
        cls,
        model: str,
        *,
        context: int | None = None,
        dtype: str | None = None,
        kv_cache_gib: int | None = None,
        compile: bool | None = None,
        graft: bool = False,
        **vllm_options: Any,
    ) -> "VllmEngine":
        """Load a model: a folder in Hugging Face layout, or a Hub id.

        Args:
            context: tokens a thread may see; the model's own window if None.
            dtype: of weights and KV cache; on CPUs float32 if None, elsewhere the model's own.
            kv_cache_gib: memory for KV blocks on CPUs, whole GiB, 1 if None; for GPUs see ``gpu_memory_utilization``.
            compile: whether to compile the model; on GPUs if None. Compiling on CPUs costs a minute at every start.
            graft: whether KV is kept and handed out, so that joins can graft.
            vllm_options: further fields of vLLM's ``AsyncEngineArgs``.

        Raises:
            InputError: an option that vLLM does not have, or ``graft`` where that is not possible, with the reason.
            ModelError: nothing can be loaded from ``model``.
            EngineError: vLLM is not installed, or did not start.
        """
        check_model(model)
        cpu = _imported_on_cpu()
        compile = not cpu if compile is None else compile
        options: dict[str, Any] = {
            "model": model,
            "max_model_len": context,
            "dtype": dtype or ("float32" if cpu else "auto"),
            "enforce_eager": not compile,
            "enable_prefix_caching": True,
            "logprobs_mode": "raw_logprobs",
            "disable_log_stats": True,
        }
        if cpu:
            options["block_size"] = 32  # the smallest that vLLM's CPU attention takes: forks share more of their prefix
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        if graft:
            options |= compat.options()
        with starting(compile, kv_cache_gib, graft) as log:
            try:
                arguments = AsyncEngineArgs(**(options | vllm_options))
            except TypeError as error:
                raise InputError(f"vLLM refuses an option: {error}") from None
            try:
                config = arguments.create_engine_config()
                if graft and (reason := compat.why_not(config)):
                    raise InputError(f"engine 'vllm' cannot graft with {model!r}: {reason}; use engine='torch'")
                llm = AsyncLLM.from_vllm_config(config, disable_log_stats=arguments.disable_log_stats)
            except InputError:
                raise
            except Exception as error:  # vLLM raises bare RuntimeError, ValueError, OSError and others at start
                reason = last_error(log) or first_line(error)
                raise EngineError(f"engine 'vllm' could not start {model!r}: {reason} (log: {log})") from error
        return cls(llm, model, log, graft)

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode until a stop; see `Engine`. KV that it was given may be released as soon as it has begun."""
        self._live.add(request.id)
        try:
            if self.joins and (request.held or request.keep or request.positions is not None):
                return await self.joins.generate(request, on_tokens)
            decoded = Decoded()
            await self._ask(request, None, decoded, on_tokens)
            return decoded
        finally:
            self._live.discard(request.id)
            self._unwanted.discard(request.id)

    async def _ask(
        self, request: Decode, facts: Facts | None, decoded: Decoded, on_tokens: OnTokens | None
    ) -> int | None:
        """Run one request on vLLM, and add to ``decoded`` what comes of it.

        Returns:
            How many of its tokens have KV that is pinned now, if that was asked for; None if it lost a pin.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if request.id in self._unwanted:
            decoded.reason = "abort"
            return 0
        sampling = SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,
            seed=request.seed,
            max_tokens=max(request.max_tokens, 1),
            stop_token_ids=list(request.stop_ids),
            logprobs=0,
            flat_logprobs=True,
            stop=list(request.stop_texts),
            include_stop_str_in_output=True,
            detokenize=bool(request.stop_texts),
            skip_special_tokens=False,  # a stop text is looked for in the text that the dialect reads
            output_kind=RequestOutputKind.DELTA,
            skip_clone=True,
            extra_args={"kv_transfer_params": facts.travel()} if facts else None,
            **compat.every(1 if request.live else _SILENT),
        )
        begun = time.perf_counter()
        had = len(decoded.ids)
        pinned: int | None = None
        async for output in self._outputs(request.ids, sampling, request.id):
            new = output.outputs[0]
            if new.token_ids and request.max_tokens:
                if not decoded.ids:
                    decoded.first_token_s = time.perf_counter() - begun
                decoded.ids += new.token_ids
                # Before 0.29, what an abort brings may have the log-probs of all tokens once more behind its own.
                decoded.logprobs += new.logprobs.logprobs[: len(new.token_ids)]
                if on_tokens:
                    on_tokens(list(new.token_ids))
            decoded.cached_tokens = output.num_cached_tokens or decoded.cached_tokens
            if output.finished:
                if facts and new.finish_reason == "error":
                    return None
                decoded.reason = new.finish_reason if new.finish_reason in ("stop", "length") else "abort"
                pinned = (output.kv_transfer_params or {}).get("kept")
            elif request.id in self._unwanted:
                await self.llm.abort(request.id)
        if request.max_tokens == 0 and decoded.reason == "stop":
            decoded.reason = "length"
        tokens = len(request.ids) + len(decoded.ids) - had
        if pinned is None:  # found at a stop text, which vLLM's scheduler does not know of
            return tokens - 1
        return min(pinned, tokens)

    async def _send(self, parameters: dict[str, Any]) -> None:
        await compat.send(self.llm, f"told/{time.monotonic_ns()}", parameters)

    async def abort(self, request_id: str) -> None:
        """End a request now; one that has not reached vLLM yet is ended at its first token."""
        if request_id in self._live:
            self._unwanted.add(request_id)
            await self.llm.abort(request_id)

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        scores: list[float] = []
        async for output in self._outputs(ids, sampling, f"score/{time.monotonic_ns()}"):
            entries = (output.prompt_logprobs or [])[1:]
            scores = [entry[token].logprob for entry, token in zip(entries, ids[1:], strict=True)]
        return scores

    async def _outputs(self, ids: list[int], sampling: Any, request_id: str) -> AsyncIterator[Any]:
        """What vLLM says of a request, bit by bit; what it refuses or breaks on is an `EngineError`."""
        from vllm import TokensPrompt

        try:
            async for output in self.llm.generate(TokensPrompt(prompt_token_ids=list(ids)), sampling, request_id):
                yield output
        except compat.refusals() as error:
            raise EngineError(f"engine 'vllm' failed: {first_line(error.__cause__ or error)}") from error

    async def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder of the same architecture and shapes.

        Requests under way wait, and go on with the new weights and KV of them; so does all KV that is held. What was
        sampled before was sampled, and its log-probs given, by the old ones.

        Raises:
            ModelError: no model lies there.
            EngineError: vLLM could not load it; then the engine cannot be used any more.
        """
        check_model(model)
        await self.llm.pause_generation(mode="keep", clear_cache=False)
        try:
            await self.llm.collective_rpc("reload_weights", kwargs={"weights_path": model})
            await self.llm.reset_prefix_cache(reset_connector=True)  # lets go of pins, which the next line needs
            await self.llm.reset_prefix_cache(reset_running_requests=True)
        except Exception as error:  # vLLM passes on whatever a worker raised
            await self.close()
            raise EngineError(f"engine 'vllm' could not load the weights of {model!r}: {first_line(error)}") from error
        await self.llm.resume_generation()

    async def kv_is_free(self) -> bool:
        """Whether every KV block is free: no request, live or leaked, and no KV holds one.

        Empties the prefix cache if so.
        """
        if self.joins is None:
            return bool(await self.llm.reset_prefix_cache())
        await self.joins.pins.settle()
        for _ in range(FREEING):  # a step that is under way frees its blocks when it ends
            if len(self.joins.pins) == 0 and await self.llm.reset_prefix_cache():
                return True
            await asyncio.sleep(0.01)
        return False

    async def close(self) -> None:
        """Shut vLLM down; returns when its processes are gone. A second call does nothing."""
        self.llm.shutdown(timeout=CLOSE_S)
        # AsyncLLM's finaliser calls shutdown once more, and fails in an interpreter that is already torn down.
        vars(self.llm)["shutdown"] = lambda timeout=None: None
        self._log.unlink(missing_ok=True)


def _imported_on_cpu() -> bool:
    """Import vLLM; whether it will run on the CPU.

    Raises:
        EngineError: vLLM is not installed, or finds no device that it was built for.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"engine 'vllm' is not installed ({error}); install parallel-reason[cpu] or parallel-reason[gpu]"
        ) from None
    if not current_platform.device_type:
        raise EngineError("engine 'vllm' finds no device: install parallel-reason[cpu] where there is no GPU")
    return bool(current_platform.is_cpu())


def _eos_ids(llm: "AsyncLLM", tokenizer: Any) -> set[int]:
    ids: Any = llm.model_config.try_get_generation_config().get("eos_token_id")
    if ids is None:
        ids = getattr(llm.model_config.hf_text_config, "eos_token_id", None)
    named = set(ids) if isinstance(ids, list) else {ids}
    return {token for token in named | {tokenizer.eos_token_id} if token is not None}
