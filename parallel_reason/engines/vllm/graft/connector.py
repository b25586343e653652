"""vLLM's KV connector for grafts: one half lives in the scheduler, one in each worker.

A request that begins with pinned KV brings a `GraftRequest`. The scheduler takes what its prefix cache has, which
salted hashes keep apart from plain text, and asks the connector for the rest: those tokens are copied before the
forward pass, each from its pin to the request's own block. vLLM looks up a preempted request anew, so it is grafted
again.

A request ends in an error if its message is not valid, or if a pin is gone and plain computing would give other KV;
then the client computes the pin again, and repeats it. To vLLM it waits for a transfer that fails: so its blocks never
enter the prefix cache, where those of a copy within the step would be before it is known to fail.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from parallel_reason.engines.vllm.graft import compat
from parallel_reason.engines.vllm.graft.copier import Copier
from parallel_reason.engines.vllm.graft.messages import GraftRequest, ReleasePins
from parallel_reason.engines.vllm.graft.pinned_blocks import Ints, PinnedBlocks, slots_of
from parallel_reason.engines.vllm.graft.positions import SlotOffsets

logger = logging.getLogger(__name__)


@dataclass
class Step(KVConnectorMetadata):  # type: ignore[misc]
    """What the workers do before a forward pass.

    Attributes:
        sources, targets: slots, copied from and to.
        slots, offsets: the new position offsets of slots.
        failed: requests that are to end in an error, and of each a block that no other request has.
    """

    sources: list[Ints] = field(default_factory=list)
    targets: list[Ints] = field(default_factory=list)
    slots: list[Ints] = field(default_factory=list)
    offsets: list[Ints] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ScheduledRequest:
    """A request with a message, while it is in the scheduler.

    Attributes:
        message: None if it was not valid.
        prompt: its tokens.
        blocks: how many it has.
        released: whether its pin was released before it was made.
    """

    message: GraftRequest | None
    prompt: int
    blocks: int = 0
    released: bool = False

    @property
    def pinned(self) -> int:
        """Tokens that come from pins: all it begins with, but its last token is computed for its logits."""
        return min(self.message.pinned, self.prompt - 1) if self.message else 0


class GraftConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """See the module."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """Refuse a cache that cannot be grafted into."""
        super().__init__(vllm_config, role, kv_cache_config)
        if not compat.full_attention(kv_cache_config):
            raise RuntimeError("grafting needs one KV cache group in which every layer attends to everything")
        self.block_size: int = vllm_config.cache_config.block_size
        self.slots: int = kv_cache_config.num_blocks * self.block_size
        self.pins = PinnedBlocks(self.block_size)
        self.requests: dict[str, ScheduledRequest] = {}
        self.blocks_with_offsets: set[int] = set()
        self.step = Step()
        self.looked_up: set[str] = set()  # requests, since the last step, that were not admitted
        self.stuck = False
        self.hash_function = compat.hash_function(vllm_config)

    # In the scheduler.

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Take the scheduler's block pool."""
        self.pins.pool = gpu_block_pool

    def on_new_request(self, request: Any) -> None:
        """Validate the message of a request, and follow it."""
        parameters = request.kv_transfer_params
        if parameters is None:
            return
        try:
            if release := ReleasePins.read(parameters):
                self._release(release)
                return
            message = GraftRequest.read(parameters)
            if message is None or message.pinned > request.num_prompt_tokens:
                raise ValueError("no message for grafts, or one of more pinned tokens than the prompt has")
        except (ValidationError, ValueError) as error:
            logger.error("request %s is refused: %s", request.request_id, error)
            message = None
        self.requests[request.request_id] = ScheduledRequest(message, request.num_prompt_tokens)
        if message and message.salts:
            compat.salt_hashes(request, self.hash_function, self.block_size, message.salts)

    def _release(self, release: ReleasePins) -> None:
        for name in release.names:
            self.pins.release(name)
        for scheduled in self.requests.values():
            scheduled.released |= scheduled.message is not None and scheduled.message.pin_as in release.names

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """How many more tokens come from pins, after those that the prefix cache has; and whether it waits for them."""
        self.looked_up.add(request.request_id)
        scheduled = self.requests.get(request.request_id)
        message = scheduled.message if scheduled else None
        if self.stuck:
            blocks = -(-(request.num_tokens + 1) // self.block_size)
            if blocks > self.pins.pool.get_num_free_blocks():
                self.pins.make_room(blocks, {name for name, _, _ in message.tokens} if message else set())
        if scheduled is None:
            return 0, False
        if message is None:
            return request.num_tokens - num_computed_tokens, True
        if num_computed_tokens >= scheduled.pinned:
            return 0, False
        lost = not self.pins.has(message.tokens)
        if lost and num_computed_tokens >= message.floor:
            return 0, False  # plain computing gives the same KV
        return scheduled.pinned - num_computed_tokens, lost

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Plan the copies of a request that was admitted."""
        self.looked_up.discard(request.request_id)
        if not num_external_tokens:
            return
        scheduled = self.requests[request.request_id]
        message, block_ids = scheduled.message, blocks.get_block_ids()[0]
        if message is None:
            self.step.failed[request.request_id] = block_ids[(request.num_tokens - 1) // self.block_size]
            return
        start = scheduled.pinned - num_external_tokens
        if not self.pins.has(message.tokens):
            self.step.failed[request.request_id] = block_ids[start // self.block_size]
            return
        self.step.sources.append(self.pins.slots(message.tokens, start)[:num_external_tokens])
        self.step.targets.append(slots_of(block_ids, start, scheduled.pinned, self.block_size))

    def build_connector_meta(self, scheduler_output: Any) -> Step:
        """What the workers do before this step's forward pass."""
        if (
            self.requests or self.blocks_with_offsets
        ):  # else nothing in the batch has an offset, or a block that had one
            self._set_offsets(scheduler_output)
        self.stuck = scheduler_output.total_num_scheduled_tokens == 0 and bool(self.looked_up)
        self.looked_up.clear()
        step, self.step = self.step, Step()
        return step

    def _set_offsets(self, scheduler_output: Any) -> None:
        """Set the offsets of all blocks that requests were given for this step."""
        for new in scheduler_output.scheduled_new_reqs:
            self._set_offsets_of(new.req_id, new.block_ids[0], new.num_computed_tokens // self.block_size, whole=True)
        old = scheduler_output.scheduled_cached_reqs
        for request_id, block_ids, computed in zip(
            old.req_ids, old.new_block_ids, old.num_computed_tokens, strict=True
        ):
            if block_ids is not None:
                whole = request_id in old.resumed_req_ids
                self._set_offsets_of(request_id, block_ids[0], computed // self.block_size if whole else 0, whole)

    def _set_offsets_of(self, request_id: str, block_ids: list[int], first: int, whole: bool) -> None:
        """Set the offsets of the blocks that a request will write to: all after ``first`` of these.

        Args:
            whole: whether these are all its blocks, not only new ones.
        """
        scheduled = self.requests.get(request_id)
        before = scheduled.blocks if scheduled and not whole else 0
        if scheduled:
            scheduled.blocks = before + len(block_ids)
        new = block_ids[first:]
        if scheduled is None or scheduled.message is None or not scheduled.message.offsets:
            new = [block for block in new if block in self.blocks_with_offsets]
            self.blocks_with_offsets.difference_update(new)
            offsets = np.zeros(len(new) * self.block_size, dtype=np.int64)
        else:
            self.blocks_with_offsets.update(new)
            start = (before + first) * self.block_size
            places = np.arange(start, start + len(new) * self.block_size)
            begins, values = np.array([(0, 0), *scheduled.message.offsets]).T
            offsets = values[np.searchsorted(begins, places, side="right") - 1]
        if new:
            self.step.slots.append(slots_of(new, 0, len(new) * self.block_size, self.block_size))
            self.step.offsets.append(offsets)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Pin the blocks of a request that asked for it, and report how many of its tokens have KV there."""
        scheduled = self.requests.pop(request.request_id, None)
        self.looked_up.discard(request.request_id)
        pin_as = scheduled.message.pin_as if scheduled and scheduled.message and not scheduled.released else None
        if pin_as is None or request.status.name == "FINISHED_ERROR":
            return False, None
        tokens = min(request.num_computed_tokens, request.num_tokens, len(block_ids) * self.block_size)
        self.pins.pin(pin_as, block_ids, tokens)
        return False, {"pinned": tokens}

    def reset_cache(self) -> bool:
        """Release every pin, as new weights need it."""
        self.pins.release_all()
        return True

    # In a worker.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Take the cache of this worker."""
        if not SlotOffsets.models:
            raise RuntimeError(
                "the model was loaded without parallel_reason's vLLM plugin: install parallel-reason as a package, "
                "and name parallel_reason in VLLM_PLUGINS if that is set"
            )
        self.copier = Copier(kv_caches, self.block_size)
        SlotOffsets.table = torch.zeros(self.slots, dtype=torch.int64, device=self.copier.device)
        SlotOffsets.unused = self.copier.device.type == "cpu"

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """Set new offsets before the forward pass of a step."""
        super().bind_connector_metadata(connector_metadata)
        step: Any = connector_metadata
        if step.slots:
            slots, offsets = (self._tensor(parts) for parts in (step.slots, step.offsets))
            SlotOffsets.table[slots] = offsets  # type: ignore[index]
            SlotOffsets.unused = SlotOffsets.unused and not offsets.any()

    def _tensor(self, parts: Iterable[Ints]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(list(parts))).to(self.copier.device)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy; vLLM calls this before the forward pass if any request of the step needs it."""
        step = self._get_connector_metadata()
        if step.sources:
            self.copier(np.concatenate(step.sources), np.concatenate(step.targets))

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, set[str]]:
        """Requests whose wait is over: those that fail."""
        return None, set(self._get_connector_metadata().failed)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """A block of each of these; with it vLLM knows that their transfer failed."""
        return set(self._get_connector_metadata().failed.values())

    def has_connector_metadata(self) -> bool:
        """Nothing is moved layer by layer, so vLLM need not call the hooks of layers."""
        return False

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Copies are done before the forward pass."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing leaves the cache."""

    def wait_for_save(self) -> None:
        """Nothing leaves the cache."""
