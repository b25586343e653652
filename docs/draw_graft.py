"""Draw the KV blocks of one fork and its join by graft: docs/graft.svg.

python docs/draw_graft.py [FILE]

Facts, pins and slots are the engine's own. vLLM and the model are missing: `Cache` finds, copies and computes KV as
vLLM's scheduler does with the connector. KV of a token is who computed it, and its rotary position.
"""

import sys
from collections.abc import Iterator
from itertools import accumulate, count, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from picture import THREADS, fills, picture, swatch

from parallel_reason.engines.vllm_graft.facts import Facts, Source, facts, join
from parallel_reason.engines.vllm_graft.keeper import Keeper, slots_of

BLOCK, PARENT, CHILDREN, GLUE = 4, 10, (5, 7, 3), 2  # tokens
LEFT, TOP, CELL, ROW, LINE = 76, 40, 25, 50, 13  # pixels
KINDS = {"computed": "computed now", "copied": "copied from a pin", "shared": "shared: the same block, no copy"}
LEGEND = "colour: who computed the token; number: its rotary position; beneath the join: the facts of its request"
STYLE = """
.block { fill: none; stroke: #1f2328; stroke-width: 2; } .shared { stroke-dasharray: 5 3; } .rule { stroke: #8b949e; }
.mid { text-anchor: middle; } .computed { fill: #ffffff; font-weight: bold; }
.copied { paint-order: stroke; stroke: #ffffff; stroke-width: 3; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) { .block { stroke: #e6edf3; } .copied { stroke: #0d1117; } }"""


class Row(NamedTuple):
    """A request; of every token what became of it, who computed it, and its position."""

    name: str
    thread: int
    told: Facts
    blocks: list[int]
    tokens: list[tuple[str, int, int]]


class Cache:
    """The block of every hash, pins, and what tokens in every slot. Nothing is ever freed."""

    def __init__(self) -> None:
        """Empty."""
        self.hashed: dict[Any, int] = {}
        self.kv: dict[int, tuple[int, int]] = {}
        self.free = count()
        self.keeper = Keeper(BLOCK)
        blocks = [SimpleNamespace(block_id=number) for number in range(100)]
        self.keeper.pool = SimpleNamespace(blocks=blocks, touch=lambda blocks: None)

    def run(self, source: Source, told: Facts, thread: int) -> Row:
        """Compute a sequence, and keep it."""
        length = len(source.ids)
        stops = range(BLOCK, length + 1, BLOCK)  # of full blocks; a hash takes in all before
        hashes = [(tuple(source.ids[:stop]), tuple(salt for salt in told.salts if salt[0] < stop)) for stop in stops]
        sought = hashes[: (length - 1) // BLOCK]  # the last token is always computed, for its logits
        blocks = [self.hashed[code] for code in takewhile(self.hashed.__contains__, sought)]
        shared = len(blocks) * BLOCK
        blocks += [next(self.free) for _ in range(-(-length // BLOCK) - len(blocks))]
        slots = slots_of(blocks, 0, length, BLOCK).tolist()
        copies = self.keeper.slots(told.tokens, shared)[: length - 1 - shared].tolist() if told.tokens else []
        self.kv |= {slot: self.kv[pin] for slot, pin in zip(slots[shared:], copies, strict=False)}
        for place in range(shared + len(copies), length):
            offset = max((change for change in told.offsets if change[0] <= place), default=(0, 0))[1]
            self.kv[slots[place]] = thread, place - offset
        self.hashed = dict(zip(hashes, blocks, strict=False)) | self.hashed
        self.keeper.pin(source.name, blocks, length)
        kinds = ["shared"] * shared + ["copied"] * len(copies) + ["computed"] * length
        tokens = [(kind, *self.kv[slot]) for kind, slot in zip(kinds, slots, strict=False)]
        return Row(source.name, thread, told, blocks, tokens)


def play() -> list[Row]:
    """The parent, its children, and the join."""
    cache = Cache()
    parent = Source("parent", [0] * PARENT, list(range(PARENT)), ())
    held = parent.runs(0, PARENT)
    rows = [cache.run(parent, facts(parent.positions, (), (), parent.name), 0)]
    ids, positions, parts = parent.ids, parent.positions, [held]
    for thread, size in enumerate(CHILDREN, 1):
        stop = PARENT + size
        child = Source(f"child {thread}", parent.ids + [thread] * size, list(range(stop)), held)
        rows.append(cache.run(child, facts(child.positions, held, held, child.name), thread))
        ids, positions = ids + child.ids[PARENT:], positions + child.positions[PARENT:]
        parts.append(child.runs(PARENT, stop))
    held, last = join(parts), max(positions)
    joined = Source("join", ids + [0] * GLUE, [*positions, *range(last + 1, last + 1 + GLUE)], held)
    return [*rows, cache.run(joined, facts(joined.positions, held, held, joined.name), 0)]


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


def told(row: Row, y: int) -> Iterator[str]:
    """The facts of a request, each beneath the token from which it holds."""
    tokens, salts, offsets, floor, _ = row.told.travel().values()
    places = accumulate((stop - start for _, start, stop in tokens), initial=0)
    marks = {
        "tokens": {at: [name, f"{start}:{stop}"] for at, (name, start, stop) in zip(places, tokens, strict=False)},
        "salts": {at: [salt for place, salt in salts if place == at] for at, _ in salts},
        "offsets": {at: [by] for at, by in offsets},
        "floor": {floor: [floor]},
    }
    for name, found in marks.items():
        yield f'<text class="quiet" x="18" y="{y + LINE}">{name}</text>'
        for at, texts in found.items():
            yield f'<path class="rule" d="M{LEFT + at * CELL + 1},{y + 3}v{LINE * len(texts)}"/>'
            for line, text in enumerate(texts, 1):
                yield f'<text x="{LEFT + at * CELL + 5}" y="{y + LINE * line}">{text}</text>'
        y += 9 + LINE * max(map(len, found.values()))


def draw(rows: list[Row]) -> str:
    """The picture."""
    width, bottom = LEFT + len(rows[-1].blocks) * BLOCK * CELL + 8, TOP + len(rows) * ROW
    body = ['<text class="quiet" x="18" y="18">place</text>']
    body += (
        f'<text class="quiet mid" x="{LEFT + place * CELL + CELL // 2}" y="18">{place}</text>'
        for place in range(len(rows[-1].tokens))
    )
    for number, row in enumerate(rows):
        body += cells(row, TOP + number * ROW)
    body += told(rows[-1], bottom)
    x, y = 18, bottom + 11 * LINE
    for kind, text in KINDS.items():
        body += swatch(x, y, f"url(#{kind}0)", text)
        x += 34 + 7 * len(text)
    body.append(f'<text class="quiet" x="18" y="{y + 30}">{LEGEND}</text>')
    used = {(kind, thread) for row in rows for kind, thread, _ in row.tokens} | {(kind, 0) for kind in KINDS}
    return picture(width, y + 42, fills(used), body, STYLE)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("graft.svg")
    file.write_text(draw(play()), encoding="utf-8")
