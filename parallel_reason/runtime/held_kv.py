"""KV that a running thread holds on an engine that hands out handles: of the first tokens it sees, in order."""

from dataclasses import dataclass, field

from parallel_reason.engines.base import KVHandle


@dataclass(eq=False, slots=True)
class HeldKV:
    """Handles on the KV of a thread.

    Attributes:
        handles: of the first `__len__` tokens that the thread sees, in order.
        owned: those that this thread must release; the others belong to its parent.
        missing: whether it sees tokens of a graft whose KV nobody holds, so that it can never go on.
    """

    handles: tuple[KVHandle, ...] = ()
    owned: list[KVHandle] = field(default_factory=list)
    missing: bool = False

    def __len__(self) -> int:
        """How many tokens it has KV of."""
        return sum(map(len, self.handles))

    def fork(self, shares_prefix: bool) -> "HeldKV":
        """What a child starts with; the parent keeps it until the child has ended."""
        return HeldKV(self.handles if shares_prefix else ())

    def hold(self, handle: KVHandle) -> None:
        """Hold KV in one handle, instead of what it held."""
        self.release()
        self.handles, self.owned = (handle,), [handle]

    def keep_first(self, tokens: int) -> None:
        """Hold no more than the first so many tokens."""
        if len(self) > tokens:
            self.handles = self.part(0, tokens)

    def part(self, start: int, stop: int) -> tuple[KVHandle, ...]:
        """Handles on a range of the tokens; those that are cut are owned by this thread."""
        parts, place = [], 0
        for handle in self.handles:
            first, last = max(0, start - place), min(len(handle), stop - place)
            if first == 0 and last == len(handle):
                parts.append(handle)
            elif first < last:
                parts.append(handle[first:last])
                self.owned.append(parts[-1])
            place += len(handle)
        return tuple(parts)

    def take_over(self, child: "HeldKV") -> None:
        """Own what a child owned."""
        self.owned += child.owned
        child.owned = []

    def release(self) -> None:
        """Give back all that it owns."""
        for handle in self.owned:
            handle.release()
        self.owned = []
