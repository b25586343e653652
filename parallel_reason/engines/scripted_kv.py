"""KV handles of the scripted engine. There is no KV: a handle remembers of which tokens it would be."""

from parallel_reason.engines.base import EngineRequest
from parallel_reason.errors import InputError

Tokens = list[tuple[int, int]]  # id and position of each


class ScriptedKVHandle:
    """KV of consecutive tokens; see `KVHandle` of the engine protocol."""

    def __init__(self, tokens: Tokens, unreleased: "set[ScriptedKVHandle]") -> None:
        """Join the handles of one engine that were not released yet."""
        self.tokens = tokens
        self.unreleased = unreleased
        unreleased.add(self)

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.tokens)

    def __getitem__(self, part: slice) -> "ScriptedKVHandle":
        """A handle on a part of the tokens, to be released on its own."""
        if self not in self.unreleased:
            raise InputError("this KV was released; keep it until every request that needs it has started")
        return ScriptedKVHandle(self.tokens[part], self.unreleased)

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        self.unreleased.discard(self)


def context_of(request: EngineRequest) -> Tokens:
    """The context of a request, [tokens]."""
    positions = range(len(request.ids)) if request.positions is None else request.positions
    return list(zip(request.ids, positions, strict=True))


def check_held(request: EngineRequest, unreleased: set[ScriptedKVHandle]) -> None:
    """Raise InputError if the KV that a request begins with was released, or is of other tokens than its first."""
    held: Tokens = []
    for handle in request.held:
        if not isinstance(handle, ScriptedKVHandle) or handle not in unreleased:
            raise InputError(f"request {request.id!r} holds KV that was released, or is of another engine")
        held += handle.tokens
    if held != context_of(request)[: len(held)]:
        raise InputError(f"request {request.id!r} holds KV of other tokens, or positions, than its context")
