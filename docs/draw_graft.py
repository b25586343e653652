"""Draw the KV blocks of one fork and its join by graft: docs/graft.svg.

python docs/draw_graft.py [FILE]

The graft requests, pins and slots are those of the vLLM engine. vLLM and the model are replaced: `PrefixCache` finds,
copies and computes KV as vLLM's scheduler does with the connector. The KV of a token is recorded as the thread that
computed it and its rotary position.
"""

import sys
from collections.abc import Iterator
from itertools import accumulate, count, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from picture import THREADS, fills, picture, swatch

from parallel_reason.engines.vllm.graft.kv_sources import KVSource, concatenate
from parallel_reason.engines.vllm.graft.messages import GraftRequest
from parallel_reason.engines.vllm.graft.pinned_blocks import PinnedBlocks, slots_of
from parallel_reason.engines.vllm.graft.request import graft_request

BLOCK, PARENT, CHILDREN, INSERTED = 4, 10, (5, 7, 3), 2  # tokens
LEFT, TOP, CELL, ROW, LINE = 76, 40, 25, 50, 13  # pixels
KINDS = {"computed": "computed now", "copied": "copied from a pin", "shared": "shared: the same block, no copy"}
LEGEND = "colour: the thread that computed the token; number: its rotary position; below the join: its GraftRequest"
STYLE = """
.block { fill: none; stroke: #1f2328; stroke-width: 2; } .shared { stroke-dasharray: 5 3; } .rule { stroke: #8b949e; }
.mid { text-anchor: middle; } .computed { fill: #ffffff; font-weight: bold; }
.copied { paint-order: stroke; stroke: #ffffff; stroke-width: 3; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) { .block { stroke: #e6edf3; } .copied { stroke: #0d1117; } }"""


class Row(NamedTuple):
    """A request of the picture.

    Attributes:
        name: at its left.
        thread: index of its thread.
        request: what it tells the connector.
        blocks: block numbers, in order.
        tokens: of each token its kind in ``KINDS``, the thread that computed it, and its position, [tokens].
    """

    name: str
    thread: int
    request: GraftRequest
    blocks: list[int]
    tokens: list[tuple[str, int, int]]


class PrefixCache:
    """The block of every hash, the pins, and what computed the KV in every slot. Nothing is ever freed."""

    def __init__(self) -> None:
        """Empty."""
        self.hashed: dict[Any, int] = {}
        self.kv: dict[int, tuple[int, int]] = {}
        self.free = count()
        self.pinned = PinnedBlocks(BLOCK)
        blocks = [SimpleNamespace(block_id=number) for number in range(100)]
        self.pinned.pool = SimpleNamespace(blocks=blocks, touch=lambda blocks: None)

    def run(self, source: KVSource, request: GraftRequest, thread: int) -> Row:
        """Compute a sequence, and pin its blocks."""
        length = len(source.ids)
        stops = range(BLOCK, length + 1, BLOCK)  # of full blocks; a hash covers all tokens before
        salts = [tuple(salt for salt in request.salts if salt.token < stop) for stop in stops]
        hashes = [(tuple(source.ids[:stop]), salt) for stop, salt in zip(stops, salts, strict=True)]
        wanted = hashes[: (length - 1) // BLOCK]  # the last token is always computed, for its logits
        blocks = [self.hashed[code] for code in takewhile(self.hashed.__contains__, wanted)]
        shared = len(blocks) * BLOCK
        blocks += [next(self.free) for _ in range(-(-length // BLOCK) - len(blocks))]
        slots = slots_of(blocks, 0, length, BLOCK).tolist()
        copies: list[int] = []
        if request.tokens:
            copies = self.pinned.slots(request.tokens, shared)[: length - 1 - shared].tolist()
        self.kv |= {slot: self.kv[pin] for slot, pin in zip(slots[shared:], copies, strict=False)}
        for place in range(shared + len(copies), length):
            offset = max((offset for offset in request.offsets if offset.token <= place), default=(0, 0))[1]
            self.kv[slots[place]] = thread, place - offset
        self.hashed = dict(zip(hashes, blocks, strict=False)) | self.hashed
        self.pinned.pin(source.name, blocks, length)
        kinds = ["shared"] * shared + ["copied"] * len(copies) + ["computed"] * length
        tokens = [(kind, *self.kv[slot]) for kind, slot in zip(kinds, slots, strict=False)]
        return Row(source.name, thread, request, blocks, tokens)


def run() -> list[Row]:
    """The requests of the parent, its children, and the join."""
    cache = PrefixCache()
    parent = KVSource("parent", [0] * PARENT, list(range(PARENT)), ())
    held = parent.slices(0, PARENT)
    rows = [cache.run(parent, graft_request(parent.positions, (), (), parent.name), 0)]
    ids, positions, parts = parent.ids, parent.positions, [held]
    for thread, size in enumerate(CHILDREN, 1):
        stop = PARENT + size
        child = KVSource(f"child {thread}", parent.ids + [thread] * size, list(range(stop)), held)
        rows.append(cache.run(child, graft_request(child.positions, held, held, child.name), thread))
        ids, positions = ids + child.ids[PARENT:], positions + child.positions[PARENT:]
        parts.append(child.slices(PARENT, stop))
    held, last = concatenate(parts), max(positions)
    inserted = range(last + 1, last + 1 + INSERTED)
    join = KVSource("join", ids + [0] * INSERTED, [*positions, *inserted], held)
    return [*rows, cache.run(join, graft_request(join.positions, held, held, join.name), 0)]


def cells(row: Row, y: int) -> Iterator[str]:
    """The blocks of a request, and its tokens in them."""
    yield f'<rect x="8" y="{y}" width="4" height="{CELL}" fill="{THREADS[row.thread]}"/>'
    yield f'<text x="18" y="{y + 17}">{row.name}</text>'
    for place, (kind, thread, position) in enumerate(row.tokens):
        x = LEFT + place * CELL
        yield f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="url(#{kind}{thread})"/>'
        yield f'<path class="line" d="M{x + CELL},{y}v{CELL}"/>'
        yield f'<text class="mid {kind}" x="{x + CELL // 2}" y="{y + 17}">{position}</text>'
    for x, block, (kind, *_) in zip(count(LEFT, BLOCK * CELL), row.blocks, row.tokens[::BLOCK], strict=False):
        mark = "block shared" if kind == "shared" else "block"
        yield f'<text class="quiet" x="{x + 2}" y="{y - 5}">block {block}</text>'
        yield f'<rect class="{mark}" x="{x}" y="{y}" width="{BLOCK * CELL}" height="{CELL}"/>'


def fields(row: Row, y: int) -> Iterator[str]:
    """The fields of a graft request, each below the token from which it holds."""
    request = row.request
    places = accumulate((part.stop - part.start for part in request.tokens), initial=0)
    marks: dict[str, dict[int, list[Any]]] = {
        "tokens": {
            place: [part.pin, f"{part.start}:{part.stop}"] for place, part in zip(places, request.tokens, strict=False)
        },
        "salts": {salt.token: [s.text for s in request.salts if s.token == salt.token] for salt in request.salts},
        "offsets": {offset.token: [offset.by] for offset in request.offsets},
        "floor": {request.floor: [request.floor]},
    }
    for name, found in marks.items():
        yield f'<text class="quiet" x="18" y="{y + LINE}">{name}</text>'
        for place, texts in found.items():
            yield f'<path class="rule" d="M{LEFT + place * CELL + 1},{y + 3}v{LINE * len(texts)}"/>'
            for line, text in enumerate(texts, 1):
                yield f'<text x="{LEFT + place * CELL + 5}" y="{y + LINE * line}">{text}</text>'
        y += 9 + LINE * max(map(len, found.values()))


def draw(rows: list[Row]) -> str:
    """The picture of the requests."""
    width, bottom = LEFT + len(rows[-1].blocks) * BLOCK * CELL + 8, TOP + len(rows) * ROW
    body = ['<text class="quiet" x="18" y="18">place</text>']
    body += (
        f'<text class="quiet mid" x="{LEFT + place * CELL + CELL // 2}" y="18">{place}</text>'
        for place in range(len(rows[-1].tokens))
    )
    for number, row in enumerate(rows):
        body += cells(row, TOP + number * ROW)
    body += fields(rows[-1], bottom)
    x, y = 18, bottom + 11 * LINE
    for kind, text in KINDS.items():
        body += swatch(x, y, f"url(#{kind}0)", text)
        x += 34 + 7 * len(text)
    body.append(f'<text class="quiet" x="18" y="{y + 30}">{LEGEND}</text>')
    used = {(kind, thread) for row in rows for kind, thread, _ in row.tokens} | {(kind, 0) for kind in KINDS}
    return picture(width, y + 42, fills(used), body, STYLE)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("graft.svg")
    file.write_text(draw(run()), encoding="utf-8")
