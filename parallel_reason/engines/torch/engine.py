"""The torch engine. One pool holds the KV of every token once (`KVPool`).

A step runs the new tokens of all requests as one packed row (`ModelRunner`); requests join and leave between steps.
After a fork, several requests use the same `TorchKVHandle`; a graft gives one request the KV of several. Steps run in a
worker thread; requests change only between them.
"""

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from parallel_reason.engines.admission import Admission
from parallel_reason.engines.base import Capabilities, EngineRequest, OnTokens, RequestOutput
from parallel_reason.engines.checks import check_thread
from parallel_reason.engines.grammars import Grammars
from parallel_reason.engines.models import check_model
from parallel_reason.engines.seeded_draw import SeededDraw
from parallel_reason.engines.shaping import Shaping
from parallel_reason.engines.torch.model import Model
from parallel_reason.engines.torch.pool import KVPool
from parallel_reason.engines.torch.request import RequestState
from parallel_reason.engines.torch.runner import ModelRunner
from parallel_reason.errors import EngineError, InputError, ParallelReasonError, first_line

NO_LORA = (
    "merge the adapter into the model, or use engine='vllm' with enable_lora=True and a dialect that does not graft"
)


class TorchEngine:
    """One model on torch; see `Engine`. Made by `start`."""

    name = "torch"
    capabilities = Capabilities(graft=True, update_weights=True, refuses={"lora": NO_LORA})

    def __init__(self, model: Model, pool: KVPool, context: int, worker: ThreadPoolExecutor) -> None:
        """Use a loaded model, an empty pool for its KV, and the thread that runs it."""
        self.model = model.name
        self.tokenizer = model.tokenizer
        self.context = context
        self.vocabulary: int = model.config.vocab_size
        self.eos_ids = model.eos_ids()
        self.precision = f"{str(model.net.dtype).removeprefix('torch.')} on {model.device}"
        self.admission = Admission(pool.limit, 1, preempts=False)
        self.policy_version = 0
        self._pool = pool
        self._runner = ModelRunner(model, pool)
        self._worker = worker
        self._grammars: Grammars | None = None
        self._requests: dict[str, RequestState] = {}
        self._step_loop: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def start(
        cls,
        model: str,
        *,
        context: int | None = None,
        dtype: str | None = None,
        device: str | None = None,
        kv_tokens: int | None = None,
    ) -> "TorchEngine":
        """Load a model: a folder in Hugging Face layout, or a Hub id.

        Args:
            context: tokens a thread may see; at most, and if None, the model's own window.
            dtype: of weights and KV; if None, float32 on CPUs and the model's own elsewhere.
            device: such as ``cpu`` or ``cuda``; if None, a GPU if there is one.
            kv_tokens: most tokens whose KV is held at once; if None, 1,048,576, or what fits in half the free memory.

        Raises:
            InputError: an option that cannot be used.
            ModelError: nothing can be loaded from ``model``, or the engine cannot run it.
        """
        check_model(model)
        for option, value in (("context", context), ("kv_tokens", kv_tokens)):
            if value is not None and value < 1:
                raise InputError(f"{option} must be at least 1, not {value}")
        worker = ThreadPoolExecutor(1, "torch engine")
        try:
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(worker, Model.load, model, dtype, device)
            pool = loaded.pool(kv_tokens)
        except BaseException:
            worker.shutdown(wait=False)
            raise
        return cls(loaded, pool, min(loaded.context(), context or loaded.context()), worker)

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Decode until a stop; see `Engine`. ``request.held`` may be released as soon as this has started to run.

        Args:
            on_tokens: called between two steps; an exception from it ends this request with that exception.
        """
        self._refuse_closed()
        self._check(request)
        future: asyncio.Future[RequestOutput] = asyncio.get_running_loop().create_future()
        self._requests[request.id] = RequestState(
            request,
            future,
            on_tokens,
            pool=self._pool,
            tokenizer=self.tokenizer,
            eos_ids=self.eos_ids,
            context=self.context,
            policy_version=self.policy_version,
            shaping=self._shaping(request),
        )
        if self._step_loop is None or self._step_loop.done():
            self._step_loop = asyncio.create_task(self._run_steps())
        return await future

    async def abort(self, request_ids: Collection[str]) -> None:
        """End requests after the step that runs; ids that are unknown or have ended are ignored."""
        for request_id in request_ids:
            if state := self._requests.get(request_id):
                state.aborted = True

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        self._refuse_closed()
        self._check_ids(ids)
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._worker, self._runner.score, list(ids))
        except ParallelReasonError:
            raise
        except Exception as error:
            raise EngineError(f"engine 'torch' failed to score: {first_line(error)}") from error
        return scores

    async def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder of the same architecture and shapes; see `Engine`.

        KV is of the weights that computed it, so this is for times when nothing runs and no KV is held.
        """
        self._refuse_closed()
        check_model(model)
        if not await self.kv_is_free():
            raise EngineError("engine 'torch' changes its weights between traces only: some run, or hold KV")
        await asyncio.get_running_loop().run_in_executor(self._worker, self._runner.model.load_weights, model)
        self.policy_version += 1

    async def kv_is_free(self) -> bool:
        """Whether no request and no `TorchKVHandle` holds a slot."""
        if self._step_loop and all(state.future.done() for state in self._requests.values()):
            await asyncio.wait([self._step_loop])  # cancelled requests leave after the step that runs
        return not self._requests and not self._pool.used()

    def kv_bytes(self) -> int:
        """Bytes of all KV in use."""
        return self._pool.used() * self._pool.slot_bytes

    async def close(self) -> None:
        """End all requests with an EngineError, and the worker thread."""
        self._closed = True
        for state in self._requests.values():
            state.error = EngineError("engine 'torch' was closed")
        if self._step_loop:
            await asyncio.wait([self._step_loop])
        self._worker.shutdown()

    async def _run_steps(self) -> None:
        """Run steps until no request is left."""
        loop = asyncio.get_running_loop()
        while True:
            for state in list(self._requests.values()):
                if self._ended(state):
                    del self._requests[state.request.id]
            if not self._requests:
                return
            try:
                await loop.run_in_executor(self._worker, self._runner.step, list(self._requests.values()))
            except Exception as error:  # a fault of the engine itself: without this, callers would wait for ever
                for state in self._requests.values():
                    state.error = EngineError(f"engine 'torch' failed: {first_line(error)}")

    def _ended(self, state: RequestState) -> bool:
        """Report the new tokens of a request, and end it if it is done; whether it has ended."""
        if state.future.done():  # its caller was cancelled
            state.release()
            return True
        try:
            if state.aborted:
                state.finish_reason = "abort"
            state.report()
        except Exception as error:  # from the caller's on_tokens
            state.error = state.error or error
        if state.error:
            state.fail(state.error)
            return True
        if state.aborted or (state.finish_reason and not state.pending):
            state.finish()
            return True
        return False

    def _shaping(self, request: EngineRequest) -> Shaping | None:
        """The rules on a request's logits; None if it has none."""
        draw = SeededDraw.of(request, self.tokenizer, self.eos_ids) if request.sampling.changes_logits else None
        if draw is None or not request.max_tokens:
            return None
        if request.sampling.structured_outputs and self._grammars is None:
            self._grammars = Grammars(self.tokenizer, self.vocabulary)
        return Shaping(draw, request.ids, [], self._grammars)

    def _check(self, request: EngineRequest) -> None:
        if request.id in self._requests:
            raise InputError(f"a request with the id {request.id!r} is already running; ids must be unique")
        if request.positions is not None and len(request.positions) != len(request.ids):
            raise InputError(
                f"request {request.id!r} has {len(request.ids)} ids but {len(request.positions)} positions"
            )
        self._check_ids(request.ids)
        check_thread(request.sampling, self)

    def _check_ids(self, ids: list[int]) -> None:
        if not ids:
            raise InputError("there are no ids to continue from; give at least one")
        if len(ids) > self.context:
            raise EngineError(
                f"engine 'torch' has a context of {self.context} tokens, not {len(ids)}; give fewer or a larger context"
            )
        if wrong := next((token for token in ids if not 0 <= token < self.vocabulary), None):
            raise InputError(f"token id {wrong} is not in the vocabulary of {self.vocabulary}")

    def _refuse_closed(self) -> None:
        if self._closed:
            raise EngineError("engine 'torch' was closed")
