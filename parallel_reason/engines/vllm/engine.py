"""The vLLM engine: one ``AsyncLLM``, whose requests are the threads of all traces.

A fork costs what vLLM's prefix cache leaves to compute: children are requests that begin with their parent's tokens,
and every full block of these is shared. An engine that was started to graft keeps and hands out KV (`graft`), and then
neither forks nor joins compute anything again. Log-probs are vLLM's ``raw_logprobs``: of the model at temperature 1.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_reason.engines.admission import Admission
from parallel_reason.engines.base import Capabilities, EngineRequest, FinishReason, OnTokens, RequestOutput
from parallel_reason.engines.checks import check_thread
from parallel_reason.engines.models import ADD_TOKENIZER, check_model, check_tokenizer
from parallel_reason.engines.vllm import compat
from parallel_reason.engines.vllm.attempt import in_thread
from parallel_reason.engines.vllm.graft import compat as graft_compat
from parallel_reason.engines.vllm.graft.client import GraftClient
from parallel_reason.engines.vllm.graft.kv_references import KVReferences
from parallel_reason.engines.vllm.graft.messages import GraftRequest, ReleasePins
from parallel_reason.engines.vllm.live_request import LiveRequest
from parallel_reason.engines.vllm.process import last_error
from parallel_reason.engines.vllm.sampling import most_adapters, refused, vllm_sampling_params
from parallel_reason.engines.vllm.start import import_vllm, start_vllm
from parallel_reason.errors import EngineError, InputError, first_line

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

FREE_CHECKS = 50  # 10 ms apart, until KV counts as held
CLOSE_CHECKS = 5000  # 1 ms apart, that requests get to end with an error
CLOSE_S = 20  # seconds that vLLM's processes get to end before they are killed


class VllmEngine:
    """One model on vLLM. Make it with `start`.

    Attributes:
        llm: the running ``AsyncLLM``.
        graft_client: None if the engine was not started to graft.
    """

    name = "vllm"

    def __init__(
        self, llm: "AsyncLLM", model: str, log: Path, *, graft: bool, seeded_sampler: bool, extended: bool
    ) -> None:
        """Wrap an ``AsyncLLM`` from `start_vllm`.

        Args:
            log: standard error of vLLM's processes.
            seeded_sampler: whether they draw seeded tokens with `SeededSampler`.
            extended: whether they are `WorkerExtension`.
        """
        self.llm = llm
        self.model = model
        refuses = refused(llm.vllm_config, graft=graft, seeded_sampler=seeded_sampler)
        self.capabilities = Capabilities(graft=graft, update_weights=extended, refuses=refuses)
        self.policy_version = 0
        self.tokenizer: Any = llm.get_tokenizer()
        self.graft_client = GraftClient(self._run, KVReferences(self._send), self.tokenizer) if graft else None
        # With grafts, KV of a whole context is computed by a request that samples one token more.
        self.context: int = llm.model_config.max_model_len - int(graft)
        self.vocabulary: int = llm.model_config.get_vocab_size()
        self.precision = str(llm.model_config.dtype).removeprefix("torch.")
        cache = llm.vllm_config.cache_config
        self.admission = Admission(cache.num_gpu_blocks - 1, cache.block_size)  # vLLM keeps one for itself
        self.eos_ids = frozenset(_eos_ids(llm, self.tokenizer))
        self._log = log
        self._seeded_sampler = seeded_sampler
        self._live: dict[str, LiveRequest] = {}
        self._numbers = itertools.count()
        self._adapters: dict[str, Any] = {}  # those that were loaded
        self._loading = asyncio.Lock()
        self._closed = False

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
            kv_cache_gib: memory for KV blocks, whole GiB. If None, 1 on CPUs; on GPUs that of 1,048,576 tokens, or if
                the card has no room for it, or the model is not in a folder, what ``gpu_memory_utilization`` leaves.
            compile: whether to compile the model; on GPUs if None. Compiling on CPUs costs a minute at every start.
            graft: whether KV is kept and handed out, so that joins can graft.
            vllm_options: further fields of vLLM's ``AsyncEngineArgs``.

        Raises:
            InputError: an option that vLLM does not have, or ``graft`` where that is not possible, with the reason.
            ModelError: nothing can be loaded from ``model``.
            EngineError: vLLM is not installed, or did not start.
        """
        check_model(model)
        check_tokenizer(vllm_options.get("tokenizer") or model, ADD_TOKENIZER)
        if dtype:
            vllm_options["dtype"] = dtype
        options = {"max_model_len": context, **vllm_options}
        await asyncio.to_thread(import_vllm)
        start = partial(start_vllm, model, options, kv_cache_gib=kv_cache_gib, compile=compile, graft=graft)
        started = await in_thread(start)
        engine = cls(
            started.llm,
            model,
            started.log,
            graft=graft,
            seeded_sampler=started.seeded_sampler,
            extended=started.extended,
        )
        if started.extended:
            engine.precision += f", attention by {(await started.llm.collective_rpc('computes_in'))[0]}"
        return engine

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Decode until a stop; see `Engine`. KV that it was given may be released as soon as it has started."""
        if request.id in self._live:
            raise InputError(f"a request with the id {request.id!r} is already running; ids must be unique")
        check_thread(request.sampling, self)
        live = self._live[request.id] = LiveRequest(request, self.tokenizer, on_tokens)
        try:
            if self.graft_client and (request.held or request.keep_kv or request.positions is not None):
                return await self.graft_client.generate(live)
            await self._run(live, request, None)
            return live.output
        finally:
            del self._live[request.id]

    async def _run(self, live: LiveRequest, request: EngineRequest, graft: GraftRequest | None) -> int | None:
        """Run one request on vLLM, all of ``live`` or what is left of it.

        Returns:
            How many of its tokens have KV that is pinned now, if ``graft`` asked for that; None if it lost a pin.
        """
        output = live.output
        if live.aborted:
            output.finish_reason = "abort"
            return 0
        before = len(output.ids)
        pinned: int | None = None
        live.begin(self.policy_version)
        sampling = vllm_sampling_params(
            request, graft, self.tokenizer, self.eos_ids, seeded_sampler=self._seeded_sampler
        )
        async with aclosing(self._outputs(request.ids, sampling, request.id, request.sampling.lora)) as reports:
            async for report in reports:
                new = report.outputs[0]
                if new.token_ids and not output.prefilled_tokens:
                    output.prefilled_tokens = len(live.request.ids)
                    output.cached_tokens = report.num_cached_tokens or 0
                if new.token_ids and request.max_tokens:
                    live.add(new)
                if report.finished:
                    if graft and new.finish_reason == "error" and not live.stopped:
                        return None
                    output.finish_reason = _finish_reason("stop" if live.stopped else new.finish_reason)
                    pinned = (report.kv_transfer_params or {}).get("pinned")
                elif live.aborted or live.stopped:
                    await self.llm.abort(request.id)
        if request.max_tokens == 0 and output.finish_reason == "stop":
            output.finish_reason = "length"
        tokens = len(request.ids) + len(output.ids) - before
        if pinned is None:  # ended by an abort, of which vLLM reports nothing: the last token may have no KV
            return tokens - 1
        return min(pinned, tokens)

    async def _send(self, message: ReleasePins) -> None:
        await graft_compat.send(self.llm, f"message/{next(self._numbers)}", message)

    async def abort(self, request_ids: Collection[str]) -> None:
        """End requests now; one that has not reached vLLM yet is ended at its first token."""
        live = [request_id for request_id in request_ids if request_id in self._live]
        for request_id in live:
            self._live[request_id].aborted = True
        if live:
            await self.llm.abort(live)

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        scores: list[float] = []
        async with aclosing(self._outputs(ids, sampling, f"score/{next(self._numbers)}")) as reports:
            async for report in reports:
                entries = (report.prompt_logprobs or [])[1:]
                scores = [entry[token].logprob for entry, token in zip(entries, ids[1:], strict=True)]
        return scores

    async def _outputs(
        self, ids: list[int], sampling: Any, request_id: str, lora: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Outputs of a vLLM request as they come; raises EngineError for what vLLM refuses or fails at."""
        from vllm import TokensPrompt

        with self._errors():
            adapter = await self._adapter(lora) if lora else None
            prompt = TokensPrompt(prompt_token_ids=list(ids))
            async with aclosing(self.llm.generate(prompt, sampling, request_id, lora_request=adapter)) as outputs:
                async for output in outputs:
                    yield output

    async def _adapter(self, name: str) -> Any:
        """An adapter as vLLM takes it; loaded at its first use, as an engine dies of one that a request cannot load."""
        from vllm.lora.request import LoRARequest

        async with self._loading:
            if name not in self._adapters:
                if len(self._adapters) >= (most := most_adapters(self.llm.vllm_config)):
                    raise InputError(f"engine 'vllm' takes {most} adapters on a CPU; start it with a higher max_loras")
                adapter = LoRARequest(name, len(self._adapters) + 1, name)
                try:
                    await self.llm.add_lora(adapter)
                except Exception as error:  # vLLM passes on whatever a worker raised
                    reason = self._cause(error)
                    raise EngineError(f"engine 'vllm' cannot load lora={name!r}: {reason}") from error
                self._adapters[name] = adapter
        return self._adapters[name]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise vLLM's errors as EngineError."""
        if self._closed:
            raise EngineError("engine 'vllm' was closed")
        try:
            yield
        except compat.vllm_errors() as error:
            if self._closed:
                raise EngineError("engine 'vllm' was closed") from error
            if self.llm.errored:
                raise EngineError(f"engine 'vllm' died: {self._cause(error)} (log: {self._log})") from error
            raise EngineError(f"engine 'vllm' failed: {self._cause(error)}") from error

    def _cause(self, error: Exception) -> str:
        """What went wrong, in one line; of an engine that died, from its log."""
        return (self.llm.errored and last_error(self._log)) or first_line(error.__cause__ or error)

    async def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder of the same architecture and shapes; see `Engine`.

        Requests under way wait, and go on with the new weights and KV of them; so does all KV that is held. Tokens
        that were sampled before keep their log-probs and their policy version.
        """
        check_model(model)
        with self._errors():
            await self.llm.pause_generation(mode="keep", clear_cache=False)
        try:
            await self.llm.collective_rpc("reload_weights", kwargs={"weights_path": model})
            await self.llm.collective_rpc("pack_tied_head")
            await self.llm.reset_prefix_cache(reset_connector=True)  # releases pins, which the next line needs
            await self.llm.reset_prefix_cache(reset_running_requests=True)
        except Exception as error:  # vLLM passes on whatever a worker raised
            cause = self._cause(error)
            await self.close()
            raise EngineError(f"engine 'vllm' could not load the weights of {model!r}: {cause}") from error
        self.policy_version += 1
        for request_id, live in self._live.items():  # vLLM is idle, and its outputs have come
            live.weights_changed(compat.sampled_tokens(self.llm, request_id), self.policy_version)
        with self._errors():
            await self.llm.resume_generation()

    async def kv_is_free(self) -> bool:
        """Whether every KV block is free: no request, live or leaked, and no handle holds one.

        Empties the prefix cache if so.
        """
        with self._errors():
            if self.graft_client is None:
                return bool(await self.llm.reset_prefix_cache())
            references = self.graft_client.references
            await references.flush()
            for _ in range(FREE_CHECKS):  # a step that is under way frees its blocks when it ends
                if len(references) == 0 and await self.llm.reset_prefix_cache():
                    return True
                await asyncio.sleep(0.01)
        return False

    async def close(self) -> None:
        """Fail what still runs and shut vLLM down; returns when its processes are gone. A second call does nothing.

        The log of vLLM's processes is deleted, unless they died.
        """
        if self._closed:
            return
        died = self.llm.errored
        self._closed = True
        for _ in range(CLOSE_CHECKS):
            if died or not self._live:
                break
            compat.fail_all(self.llm, EngineError("engine 'vllm' was closed"))
            await asyncio.sleep(0.001)
        self.llm.shutdown(timeout=CLOSE_S)
        # AsyncLLM's finaliser calls shutdown once more, and fails in an interpreter that is already torn down.
        vars(self.llm)["shutdown"] = lambda timeout=None: None
        if not died:
            self._log.unlink(missing_ok=True)


def _finish_reason(reason: str) -> FinishReason:
    return "stop" if reason == "stop" else "length" if reason == "length" else "abort"


def _eos_ids(llm: "AsyncLLM", tokenizer: Any) -> set[int]:
    ids: Any = llm.model_config.try_get_generation_config().get("eos_token_id")
    if ids is None:
        ids = getattr(llm.model_config.hf_text_config, "eos_token_id", None)
    named = set(ids) if isinstance(ids, list) else {ids}
    return {token for token in named | {tokenizer.eos_token_id} if token is not None}
