"""vLLM's KV connector for grafts: one half lives in the scheduler, one in each worker.

A request that begins with pinned KV says so in its parameters (`facts`). The scheduler takes what its prefix cache has,
which salted hashes keep apart from plain text, and asks the connector for the rest: those tokens are copied before the
forward pass, each from its pin to the request's own block. vLLM looks up a preempted request anew, so it is grafted
again. If a pin is gone by then and plain computing would give other KV, the request ends in an error: the engine
computes the pins again, and repeats it. To vLLM it waits for a transfer that fails, since the blocks of such a request
are not in the prefix cache, where those of a copy within the step would be before it is known to fail.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from parallel_reason.engines.vllm_graft import compat
from parallel_reason.engines.vllm_graft.copier import Copier
from parallel_reason.engines.vllm_graft.facts import Facts
from parallel_reason.engines.vllm_graft.keeper import Ints, Keeper, slots_of
from parallel_reason.engines.vllm_graft.positions import Offsets


@dataclass
class Step(KVConnectorMetadata):  # type: ignore[misc]
    """What the workers do before a forward pass.

    Attributes:
        sources, targets: slots, copied from and to.
        slots, offsets: the new position offsets of slots.
        lost: requests whose pins are gone, and of each the first block that was to be copied to.
    """

    sources: list[Ints] = field(default_factory=list)
    targets: list[Ints] = field(default_factory=list)
    slots: list[Ints] = field(default_factory=list)
    offsets: list[Ints] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Live:
    """A request in the scheduler: what it was told, its prompt's length, and how many blocks it has."""

    facts: Facts
    prompt: int
    blocks: int = 0
    unwanted: bool = False

    @property
    def end(self) -> int:
        """Tokens that come from pins: all it begins with, but its last token is computed for its logits."""
        return min(sum(stop - start for _, start, stop in self.facts.tokens), self.prompt - 1)


class GraftConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """See the module."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """Refuse a cache that cannot be grafted into."""
        super().__init__(vllm_config, role, kv_cache_config)
        if not compat.full_attention(kv_cache_config):
            raise RuntimeError("grafting needs one KV cache group in which every layer attends to everything")
        self.block_size: int = vllm_config.cache_config.block_size
        self.slots: int = kv_cache_config.num_blocks * self.block_size
        self.keeper = Keeper(self.block_size)
        self.live: dict[str, Live] = {}
        self.shifted: set[int] = set()  # blocks with offsets
        self.step = Step()
        self.asked: set[str] = set()  # looked up since the last step, and not admitted
        self.stuck = False
        self.hash_function = compat.hash_function(vllm_config)

    # In the scheduler.

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Meet the scheduler's blocks."""
        self.keeper.pool = gpu_block_pool

    def on_new_request(self, request: Any) -> None:
        """Note what a request was told, or release what is told to be released."""
        told = request.kv_transfer_params or {}
        for name in told.get("release", ()):
            self.keeper.release(name)
            for live in self.live.values():
                live.unwanted |= live.facts.pin == name
        if "floor" not in told:
            return
        facts = Facts(**{name: told[name] for name in Facts.__slots__})
        self.live[request.request_id] = Live(facts, request.num_prompt_tokens)
        if facts.salts:
            compat.salt(request, self.hash_function, self.block_size, facts.salts)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """How many more tokens come from pins, after those that the prefix cache has; and whether it waits for them."""
        self.asked.add(request.request_id)
        live = self.live.get(request.request_id)
        if self.stuck:
            blocks = -(-(request.num_tokens + 1) // self.block_size)
            if blocks > self.keeper.pool.get_num_free_blocks():
                self.keeper.make_room(blocks, {name for name, _, _ in live.facts.tokens} if live else set())
        if live is None or num_computed_tokens >= live.end:
            return 0, False
        lost = not self.keeper.has(live.facts.tokens)
        if lost and num_computed_tokens >= live.facts.floor:
            return 0, False  # plain computing gives the same KV
        return live.end - num_computed_tokens, lost

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Plan the copies of a request that was admitted."""
        self.asked.discard(request.request_id)
        if not num_external_tokens:
            return
        live = self.live[request.request_id]
        start, block_ids = live.end - num_external_tokens, blocks.get_block_ids()[0]
        if not self.keeper.has(live.facts.tokens):
            self.step.lost[request.request_id] = block_ids[start // self.block_size]
            return
        self.step.sources.append(self.keeper.slots(live.facts.tokens, start)[:num_external_tokens])
        self.step.targets.append(slots_of(block_ids, start, live.end, self.block_size))

    def build_connector_meta(self, scheduler_output: Any) -> Step:
        """What the workers do before this step's forward pass."""
        if self.live or self.shifted:  # else nothing in the batch has an offset, or a block that had one
            self._place(scheduler_output)
        self.stuck = scheduler_output.total_num_scheduled_tokens == 0 and bool(self.asked)
        self.asked.clear()
        step, self.step = self.step, Step()
        return step

    def _place(self, scheduler_output: Any) -> None:
        """Look at the blocks that requests were given for this step."""
        for new in scheduler_output.scheduled_new_reqs:
            self._offset(new.req_id, new.block_ids[0], new.num_computed_tokens // self.block_size, whole=True)
        old = scheduler_output.scheduled_cached_reqs
        for request_id, block_ids, computed in zip(
            old.req_ids, old.new_block_ids, old.num_computed_tokens, strict=True
        ):
            if block_ids is not None:
                whole = request_id in old.resumed_req_ids
                self._offset(request_id, block_ids[0], computed // self.block_size if whole else 0, whole)

    def _offset(self, request_id: str, block_ids: list[int], first: int, whole: bool) -> None:
        """Have the blocks of a request that it will write to hold its offsets: all after ``first`` of these."""
        live = self.live.get(request_id)
        before = live.blocks if live and not whole else 0
        if live:
            live.blocks = before + len(block_ids)
        new = block_ids[first:]
        if live is None or not live.facts.offsets:
            new = [block for block in new if block in self.shifted]
            self.shifted.difference_update(new)
            offsets = np.zeros(len(new) * self.block_size, dtype=np.int64)
        else:
            self.shifted.update(new)
            start = (before + first) * self.block_size
            places = np.arange(start, start + len(new) * self.block_size)
            begins, values = np.array([(0, 0), *live.facts.offsets]).T
            offsets = values[np.searchsorted(begins, places, side="right") - 1]
        if new:
            self.step.slots.append(slots_of(new, 0, len(new) * self.block_size, self.block_size))
            self.step.offsets.append(offsets)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Pin what a request asked to have kept, and say how many tokens that is."""
        live = self.live.pop(request.request_id, None)
        self.asked.discard(request.request_id)
        if live is None or live.facts.pin is None or live.unwanted or request.status.name == "FINISHED_ERROR":
            return False, None
        tokens = min(request.num_computed_tokens, request.num_tokens, len(block_ids) * self.block_size)
        self.keeper.pin(live.facts.pin, block_ids, tokens)
        return False, {"kept": tokens}

    def reset_cache(self) -> bool:
        """Let go of every pin, as a change of weights needs it."""
        self.keeper.release_all()
        return True

    # In a worker.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Meet the cache."""
        if not Offsets.models:
            raise RuntimeError(
                "the model was loaded without parallel_reason's vLLM plugin: install parallel-reason as a package, "
                "and name parallel_reason in VLLM_PLUGINS if that is set"
            )
        self.copier = Copier(kv_caches, self.block_size)
        Offsets.table = torch.zeros(self.slots, dtype=torch.int64, device=self.copier.device)
        Offsets.unused = self.copier.device.type == "cpu"

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """Take up a step, before its forward pass."""
        super().bind_connector_metadata(connector_metadata)
        step: Any = connector_metadata
        if step.slots:
            slots, offsets = (self._tensor(parts) for parts in (step.slots, step.offsets))
            Offsets.table[slots] = offsets  # type: ignore[index]
            Offsets.unused = Offsets.unused and not offsets.any()

    def _tensor(self, parts: Iterable[Ints]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(list(parts))).to(self.copier.device)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy; vLLM calls this before the forward pass if any request of the step needs it."""
        step = self._get_connector_metadata()
        if step.sources:
            self.copier(np.concatenate(step.sources), np.concatenate(step.targets))

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, set[str]]:
        """Requests whose wait is over: those that lost a pin."""
        return None, set(self._get_connector_metadata().lost)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Of each of these a block that no other request has: it tells vLLM that their transfer has failed."""
        return set(self._get_connector_metadata().lost.values())

    def has_connector_metadata(self) -> bool:
        """Nothing is moved layer by layer, so vLLM need not call in on each of them."""
        return False

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Copies are done before the forward pass."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing leaves the cache."""

    def wait_for_save(self) -> None:
        """Nothing leaves the cache."""
