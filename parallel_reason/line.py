"""A thread while it runs: its record, and what the next request needs."""

import asyncio
from collections.abc import Iterable
from typing import Any

from parallel_reason.dialects.base import Amend, End, Ended, Glue, GoOn, Malformed, Returned, View
from parallel_reason.engines.base import KV, Decoded
from parallel_reason.trace import JoinRule, Origin, Span, Status, Thread
from parallel_reason.trace import Malformed as MalformedFork


class Line:
    """Grows with every request, join and amendment.

    Attributes:
        context: every token it sees, in order; ``positions`` of each, ``position`` of the next one, and ``mine``:
            whether it sampled it itself. What it saw at birth or at its newest join, the first ``floor``, stays.
        held: KV of the first ``covered`` tokens of the context, on an engine that hands it out; ``owned`` are those
            that this line must release.
        known: how many leading tokens of ``context`` this trace already has computed.
        critical_path: sampled tokens on the chain that ends at this thread's newest token.
        sampled: what it sampled and did not take back; ``since`` of these came before its newest join. ``drawn`` counts
            all that it sampled.
        torn: whether it sees tokens of a graft whose KV nobody holds, so that it can never go on.
        blocks: KV blocks that it holds beyond the full ones of its first ``shared`` tokens, which are its parent's;
            ``borrowed`` are those of its children, until the request after a join has taken from them.
        room: what it waits for before a request runs; see `Memory.ask`.
        cancelled: why it shall stop, once somebody said so.
        request: the id of the request that runs.
    """

    def __init__(self, thread: Thread, depth: int, parent: "Line | None" = None) -> None:
        """A line that has written nothing yet; it begins with what ``parent`` sees, if there is one."""
        self.thread = thread
        self.depth = depth
        self.context: list[int] = list(parent.context) if parent else []
        self.positions: list[int] = list(parent.positions) if parent else []
        self.mine: list[bool] = [False] * len(self.context)
        self.floor = len(self.context)
        self.position: int = parent.position if parent else 0
        self.held: tuple[KV, ...] = parent.held if parent else ()
        self.owned: list[KV] = []
        self.known: int = parent.known if parent else 0
        self.critical_path = 0
        self.own = len(self.context)  # where its own tokens begin, the header left out
        self.header: tuple[Glue, ...] = ()
        self.sampled: list[int] = []
        self.since = 0
        self.drawn = 0
        self.joins = 0
        self.ended: Ended = "start"
        self.torn = False
        self.shared = len(self.context)
        self.blocks = 0
        self.borrowed = 0
        self.room: asyncio.Future[bool] | None = None
        self.cancelled: str | None = None
        self.request: str | None = None
        self.children: list[Line] = []

    @property
    def covered(self) -> int:
        """How many tokens of the context have held KV."""
        return sum(map(len, self.held))

    @property
    def view(self) -> View:
        """What the dialect is shown."""
        return View(self.depth, self.context, self.sampled, self.since, self.joins, self.ended)

    @property
    def returned(self) -> Returned:
        """What the dialect is shown of a child that has ended."""
        status = self.thread.status
        ended = self.ended if status == "finished" and self.ended != "start" else None
        lost = status in ("cancelled", "failed")
        own, ran = self.context[self.own :], self.thread.ran
        return Returned(self.header, own, self.sampled, ran, ended or ("lost" if lost else "limit"))

    def open(self, header: tuple[Glue, ...], critical_path: int) -> None:
        """Write what stands before its first sampled token; the chain before it is that long."""
        self.header, self.critical_path = header, critical_path
        self.write(header)
        self.own = self.floor = len(self.context)

    def write(self, glue: Iterable[Glue], origin: Origin = "injected") -> None:
        """Tokens of the controller, or the prompt."""
        for piece in glue:
            if piece.ids:
                ids = list(piece.ids)
                self.thread.spans.append(Span(ids=ids, origin="copied" if piece.copied else origin, shift=piece.shift))
                self.position += piece.shift
                self._extend(ids, sampled=False)
                self.thread.recomputed_tokens += len(ids) if piece.copied else 0

    def add(self, ids: list[int], logprobs: list[float]) -> None:
        """Sampled tokens; they lengthen the newest span unless something came in between."""
        spans, forks = self.thread.spans, self.thread.forks
        places = [fork.at for fork in forks] + [block.at for block in self.thread.malformed]
        if not spans or spans[-1].origin != "sampled" or len(spans) in places:
            spans.append(Span(ids=[], origin="sampled"))
        spans[-1].ids += ids
        spans[-1].logprobs += logprobs
        self.sampled += ids
        self.drawn += len(ids)
        self.critical_path += len(ids)
        self._extend(ids, sampled=True)

    def take(self, decoded: Decoded) -> None:
        """What came of a request for all that it sees."""
        self.thread.prefilled_tokens += len(self.context)
        self.thread.cached_tokens += decoded.cached_tokens
        self.known = len(self.context) + max(0, len(decoded.ids) - 1)  # the newest token may have no KV yet
        if decoded.ids:
            self.add(decoded.ids, decoded.logprobs)
        if decoded.kv is not None:
            self.hold(decoded.kv)

    def _extend(self, ids: list[int], sampled: bool) -> None:
        self.context += ids
        self.mine += [sampled] * len(ids)
        self.positions += range(self.position, self.position + len(ids))
        self.position += len(ids)

    def follow(self, act: GoOn | End | Malformed | Amend, tokenizer: Any) -> bool:
        """Do what a dialect says of a thread that stopped and does not fork; whether it samples on."""
        if isinstance(act, Amend):
            self.amend(act)
        if isinstance(act, Malformed):
            self.thread.malformed.append(MalformedFork(at=len(self.thread.spans), reason=act.reason))
            if act.ends:
                self.end("finished", act.reason)
                return False
        if isinstance(act, End):
            self.end("finished", tokenizer.convert_ids_to_tokens(self.context[-1]))
            return False
        return True

    def amend(self, amend: Amend) -> None:
        """Take back what was sampled last, and write glue in its place."""
        self._take_back(amend.take_back)
        self.write(amend.glue)

    def _take_back(self, count: int) -> None:
        """Take back at most ``count`` of the newest tokens, none of them older than its birth or its newest join."""
        count = min(count, len(self.context) - self.floor)
        if count <= 0:
            return
        self.thread.spans.append(Span(ids=[], origin="injected", drops=count))
        self.position = self.positions[-count]
        mine = sum(self.mine[-count:])
        for grown, gone in ((self.context, count), (self.positions, count), (self.mine, count), (self.sampled, mine)):
            del grown[len(grown) - gone :]
        self.held = tuple(self._parts(0, len(self.context)))
        self.known = min(self.known, len(self.context))

    def _parts(self, start: int, stop: int) -> list[KV]:
        """Held KV of a range of the context."""
        parts, place = [], 0
        for kv in self.held:
            first, last = max(0, start - place), min(len(kv), stop - place)
            if last - first == len(kv):
                parts.append(kv)
            elif first < last:
                parts.append(kv[first:last])
                self.owned.append(parts[-1])
            place += len(kv)
        return parts

    def hold(self, kv: KV) -> None:
        """Hold KV in one piece, instead of what it held."""
        self.release()
        self.held, self.owned = (kv,), [kv]

    def release(self) -> None:
        """Give back all that it owns."""
        for kv in self.owned:
            kv.release()
        self.owned = []

    def joined(self, rule: JoinRule) -> None:
        """See what the join rule lets it see of its children, and own the KV of that."""
        ran = [child for child in self.children if child.thread.ran]
        if rule == "relinearise" and ran and ran[0] is self.children[0]:
            first = ran[0]
            self.context, self.positions, self.position = list(first.context), list(first.positions), first.position
            self.held, self.known = first.held, first.known
        if rule == "graft" and ran:
            born = len(self.context)
            self.torn = any(child.torn or child.covered < len(child.context) for child in ran)
            self.held += tuple(kv for child in ran for kv in child._parts(born, len(child.context)))
            for child in ran:
                self.context += child.context[born:]
                self.positions += child.positions[born:]
            self.position = max(child.position for child in ran)
            self.known = len(self.context)
        for child in self.children:
            if rule == "message":
                child.release()
            self.owned += child.owned
            self.borrowed += child.blocks + child.borrowed
            self.critical_path = max(self.critical_path, child.critical_path)
        self.mine = self.mine[: len(self.context)] + [False] * (len(self.context) - len(self.mine))
        self.floor = len(self.context)
        self.since, self.joins, self.children = len(self.sampled), self.joins + 1, []

    def end(self, status: Status, why: str) -> None:
        """Record how the thread ended."""
        self.thread.status, self.thread.why = status, why
