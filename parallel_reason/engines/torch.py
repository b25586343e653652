"""The torch engine: any transformers model with rotary attention, exact, on CPU and GPU.

One pool holds the KV of every token once (`torch_kv`). A step runs the new tokens of all requests as one packed row
(`torch_batch`); requests join and leave between steps. A fork gives several requests the same `KV`; a graft gives one
request the KV of several. Steps run in a thread of their own; requests change only between them.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from parallel_reason.engines.base import Capabilities, Decode, Decoded, OnTokens
from parallel_reason.engines.folder import check_model
from parallel_reason.engines.torch_batch import Batch
from parallel_reason.engines.torch_kv import Pool
from parallel_reason.engines.torch_model import Model
from parallel_reason.engines.torch_request import Request
from parallel_reason.errors import EngineError, InputError, ParallelReasonError, first_line
from parallel_reason.memory import Memory


class TorchEngine:
    """One model on torch. Make it with `start`."""

    name = "torch"
    capabilities = Capabilities(fork=True, graft=True, concurrent=True, update_weights=False)

    def __init__(self, model: Model, pool: Pool, context: int, worker: ThreadPoolExecutor) -> None:
        """Wrap a model in memory and the thread that runs it."""
        self.model = model.name
        self.tokenizer = model.tokenizer
        self.context = context
        self.vocabulary: int = model.config.vocab_size
        self.eos_ids = model.eos_ids()
        self.memory = Memory(pool.limit, 1, preempts=False)
        self._pool = pool
        self._batch = Batch(model, pool, context)
        self._worker = worker
        self._requests: dict[str, Request] = {}
        self._driver: asyncio.Task[None] | None = None
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
            context: tokens a thread may see; if None, or if that is less, the model's own window.
            dtype: of weights and KV; on CPUs float32 if None, elsewhere the model's own.
            device: such as ``cpu`` or ``cuda``; a GPU if there is one and None is given.
            kv_tokens: most tokens whose KV is held at once; if None 1,048,576, or what half the free memory holds.

        Raises:
            InputError: an option that cannot be used.
            ModelError: nothing can be loaded from ``model``, or it cannot be run.
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

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode until a stop; see `Engine`. KV that it was given may be released as soon as it has begun."""
        self._refuse_closed()
        self._check(request)
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        running = Request(request, self._pool, future, on_tokens)
        if len(request.ids) >= self.context:
            running.reason = "length"
        self._requests[request.id] = running
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await future

    async def abort(self, request_id: str) -> None:
        """End a request after the step that is under way."""
        if running := self._requests.get(request_id):
            running.unwanted = True

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        self._refuse_closed()
        self._check_ids(ids)
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._worker, self._batch.score, list(ids))
        except ParallelReasonError:
            raise
        except Exception as error:
            raise EngineError(f"engine 'torch' failed to score: {first_line(error)}") from error
        return scores

    async def kv_is_free(self) -> bool:
        """Whether no request and no `KV` holds a slot."""
        if self._driver and all(running.future.done() for running in self._requests.values()):
            await asyncio.wait([self._driver])  # cancelled requests leave after the step that is under way
        return not self._requests and not self._pool.live()

    def kv_bytes(self) -> int:
        """Bytes of all KV held."""
        return self._pool.live() * self._pool.slot_bytes

    async def close(self) -> None:
        """Fail what still runs, and end the thread."""
        self._closed = True
        for running in self._requests.values():
            running.error = EngineError("engine 'torch' was closed")
        if self._driver:
            await asyncio.wait([self._driver])
        await asyncio.to_thread(self._worker.shutdown)

    async def _drive(self) -> None:
        """Step until no request is left."""
        loop = asyncio.get_running_loop()
        while True:
            for running in list(self._requests.values()):
                if self._ended(running):
                    del self._requests[running.decode.id]
            if not self._requests:
                return
            try:
                await loop.run_in_executor(self._worker, self._batch.step, list(self._requests.values()))
            except Exception as error:  # nobody may wait for ever
                for running in self._requests.values():
                    running.error = EngineError(f"engine 'torch' failed: {first_line(error)}")

    def _ended(self, running: Request) -> bool:
        """Tell what is new of a request between two steps; whether it has ended, and if so, end it."""
        if running.future.done():  # its caller was cancelled
            running.release()
            return True
        try:
            if running.unwanted:
                running.reason = "abort"
            running.tell()
        except Exception as error:  # of the caller's own function
            running.error = running.error or error
        if running.error:
            running.fail(running.error)
            return True
        if running.unwanted or (running.reason and not running.pending):
            running.finish()
            return True
        return False

    def _check(self, request: Decode) -> None:
        if request.id in self._requests:
            raise InputError(f"a request with the id {request.id!r} is already running; ids must be unique")
        if request.positions is not None and len(request.positions) != len(request.ids):
            raise InputError(
                f"request {request.id!r} has {len(request.ids)} ids but {len(request.positions)} positions"
            )
        self._check_ids(request.ids)

    def _check_ids(self, ids: list[int]) -> None:
        if not ids:
            raise InputError("there are no ids to go on from; give at least one")
        if len(ids) > self.context:
            raise EngineError(
                f"engine 'torch' has a context of {self.context} tokens, not {len(ids)}; give fewer or a larger context"
            )
        if wrong := next((token for token in ids if not 0 <= token < self.vocabulary), None):
            raise InputError(f"token id {wrong} is not in the vocabulary of {self.vocabulary}")

    def _refuse_closed(self) -> None:
        if self._closed:
            raise EngineError("engine 'torch' was closed")
