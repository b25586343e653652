"""Draw how the trace of each dialect lies: who sees whom, at which position. One picture each in docs/layouts.

python docs/draw_layouts.py [FOLDER]

The controller makes the traces and `layout` lays them out; only the model is missing: `Told` says what it is told.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from picture import THREADS, fills, picture, swatch

from parallel_reason import Limits, SamplingParams, Trace
from parallel_reason.controller import Run
from parallel_reason.dialects import bind, find
from parallel_reason.engines.base import Capabilities, Decode, Decoded
from parallel_reason.layout import layout
from parallel_reason.memory import Memory
from parallel_reason.trace import Span

EOS = "<eos>"
WORD = r"</?\w+>|\n|[0-9.]+:| ?[^\s<]+| "
LINE = r"<eos>|[^\n]*\n|[^\n]+"


class Words:
    """A tokenizer without a file: a token is what ``pattern`` finds, a tag or a word, or a whole line."""

    def __init__(self, tags: list[str], pattern: str = WORD) -> None:
        """Tags come first; other tokens join the vocabulary as they are met."""
        self.pattern = re.compile(pattern)
        self.tokens = [EOS, *tags]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Text to ids."""
        found = self.pattern.findall(text)
        self.tokens += [token for token in dict.fromkeys(found) if token not in self.tokens]
        return [self.tokens.index(token) for token in found]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Ids to text."""
        return "".join(self.tokens[token] for token in ids)

    def get_vocab(self) -> dict[str, int]:
        """The id of every token."""
        return {token: number for number, token in enumerate(self.tokens)}

    def convert_ids_to_tokens(self, token: int) -> str:
        """One id to its token."""
        return self.tokens[token]


class Told:
    """An engine without a model: under every thread's label, the texts of its requests in turn."""

    model = "told"
    context = 4000
    eos_ids = frozenset({0})
    capabilities = Capabilities(fork=True, graft=False, concurrent=True, update_weights=False)
    memory = Memory(None, 1)

    def __init__(self, tokenizer: Any, said: dict[str, list[str]]) -> None:
        """A text ends where a model would stop: at a stop of the dialect, or the end of text."""
        self.tokenizer = tokenizer
        self.said = {label: iter(texts) for label, texts in said.items()}

    async def generate(self, request: Decode, on_tokens: Callable[[list[int]], None] | None = None) -> Decoded:
        """Say the next text of the thread that asks."""
        ids = self.tokenizer.encode(next(self.said[request.id.split("/")[2]]))
        return Decoded(ids=ids, logprobs=[0.0] * len(ids), reason="stop")

    async def abort(self, request_id: str) -> None:
        """Nothing runs that could be ended."""


@dataclass(frozen=True)
class Scene:
    """What the model of a dialect is asked, and what its threads say."""

    dialect: str
    said: dict[str, list[str]]
    prompt: str = "2*3 ?"
    pattern: str = WORD
    options: dict[str, Any] = field(default_factory=dict)

    def play(self) -> tuple[Trace, Words]:
        """Run the controller."""
        words = Words(list(find(self.dialect).tags.values()) if self.pattern == WORD else [], self.pattern)
        dialect = bind(self.dialect, words, **self.options)
        run = Run(Told(words, self.said), dialect, SamplingParams(), Limits())
        return asyncio.run(run.trace(self.prompt, words.encode(self.prompt))), words


TWICE = {"0": ["try<Parallel>", " 6</Summary> So 6<eos>"], "0.0": ["2 + 2 + 2</Path>"], "0.1": ["3 + 3</Path>"]}
SCENES = {
    "spawn_join": Scene(
        "spawn_join",
        {
            "0": ["try<spawn>add<sep>halve</spawn>", " So 6<eos>"],
            "0.0": [" 2 + 2 + 2<return> 6</thread>"],
            "0.1": [" of what ?</thread>"],
        },
    ),
    "apr": Scene(
        "apr",
        {
            "0": [
                "\nExploring Operation: 4+1=5, Resulting Numbers: [2, 5]\n"
                "Generated Node #0,0: 6:[2, 5] Operation: 4+1=5\n"
                "Exploring Operation: 4+2=6, Resulting Numbers: [1, 6]\n"
                "Generated Node #0,1: 6:[1, 6] Operation: 4+2=6\n"
                "<Calling Sub Searches>\n<Start Sub Search 0 at level 1> Moving to Node #0,0\n"
                "<Start Sub Search 1 at level 1> Moving to Node #0,1\n<End Calling Sub Searches>\n<eos>",
                "\n6,6 equal: Goal Reached\n<eos>",
            ],
            "0.0": ["\nExploring Operation: 5+2=7, Resulting Numbers: [7]\n7,6 unequal: No Solution\n<eos>"],
            "0.1": [
                "\nExploring Operation: 6*1=6, Resulting Numbers: [6]\n6,6 equal: Goal Reached\nMoving to Node #0,1\n"
                "Exploring Operation: 6*1=6, Resulting Numbers: [6]\n6,6 equal: Goal Reached\n<eos>"
            ],
        },
        prompt="Moving to Node #0\nCurrent State: 6:[1, 2, 4], Operations: []",
        pattern=LINE,
    ),
    "multiverse": Scene(
        "multiverse",
        {
            "0": [
                "<Parallel>\n<Goal>\n<Outline>\n1: add\n</Outline>\n<Outline>\n2: halve\n</Outline>\n</Goal>",
                "both\n</Conclusion>\n</Parallel> 6<eos>",
            ],
            "0.0": [" 2 + 2 + 2\n</Path>"],
            "0.1": [" 12 / 2\n</Path>"],
        },
    ),
    "npr": Scene(
        "npr",
        {
            "0": [
                "<guideline>\n<plan>1: add</plan>\n<plan>2: halve</plan>\n</guideline>",
                "both\n</takeaway> 6<eos>",
            ],
            "0.0": [" 2 + 2 + 2\n</step>"],
            "0.1": [" 12 / 2\n</step>"],
        },
    ),
    "threadweaver": Scene(
        "threadweaver",
        {
            "0": [
                "<Parallel>\n<Outlines>\n<Outline>1: add</Outline>\n<Outline>2: halve</Outline>\n</Outlines>",
                "</Parallel> 6<eos>",
            ],
            "0.0": [" 2 + 2 + 2\n</Thread>"],
            "0.1": [" 12 / 2\n</Thread>"],
        },
    ),
    "parallel_r1": Scene("parallel_r1", TWICE),
    "parallel_r1_seen": Scene("parallel_r1", TWICE, options={"view": "seen"}),
    "parathinker": Scene(
        "parathinker",
        {"0": [" So 6</summary>"], "0.0": [" 2 + 2 + 2</think1>"], "0.1": [" 3 + 3</think2>"]},
        options={"paths": 2},
    ),
}

WIDTH, NARROWEST, TOP, LETTER, CELL = 800, 600, 92, 7, 15  # pixels
LONGEST = 24  # letters of a label
ORIGINS = {
    "prompt": "the prompt",
    "sampled": "the model wrote it",
    "injected": "the controller wrote it",
    "copied": "a copy of a child's",
}


@dataclass(frozen=True)
class Token:
    """One row of the picture, and the column of the same token."""

    text: str
    position: int
    thread: int
    origin: str
    seen: list[bool]
    taken_back: bool

    @property
    def fill(self) -> str:
        """How its cells are filled."""
        return f'fill="url(#{self.origin}{self.thread})"'


def tokens(trace: Trace, words: Words) -> list[Token]:
    """The tokens of a trace as they are laid out."""
    row, mask = layout(trace), layout(trace).mask()
    spans: list[Iterator[Span]] = [iter([span for span in thread.spans if span.ids]) for thread in trace.threads]
    out = []
    for segment in row.segments:
        origin = next(spans[segment.thread]).origin
        later = np.concatenate([np.arange(s.start, s.stop) for s in row.segments if s.thread == segment.thread])
        for i in range(segment.start, segment.stop):
            text = words.tokens[row.ids[i]].strip() or "\\n"
            taken_back = not mask[later[later > i], i].all()  # its own thread went on and does not see it
            out.append(Token(text, int(row.positions[i]), segment.thread, origin, mask[i].tolist(), taken_back))
    return out


def short(text: str, length: int) -> str:
    """Text for a label, cut at its middle if it is too long: the ends tell lines apart."""
    if len(text) > length:
        text = text[: length - length // 3 - 1] + "…" + text[-(length // 3) :]
    return escape(text)


def grid(rows: list[Token], cell: int, left: int) -> Iterator[str]:
    """The mask: in every row, one rectangle for each run of tokens of one kind that it sees."""
    for i, row in enumerate(rows):
        column = 0
        for fill, run in groupby(rows[j].fill if sees else "" for j, sees in enumerate(row.seen)):
            width = len(list(run))
            if fill:
                x, y = left + column * cell, TOP + i * cell
                yield f'<rect x="{x}" y="{y}" width="{width * cell}" height="{cell}" {fill}/>'
            column += width
    size, lines = len(rows) * cell, [k * cell for k in range(1, len(rows))]
    across = "".join(f"M{left},{TOP + line}h{size}" for line in lines)
    down = "".join(f"M{left + line},{TOP}v{size}" for line in lines)
    yield f'<path class="line" d="{across}{down}"/>'
    yield f'<rect class="edge" x="{left}" y="{TOP}" width="{size}" height="{size}"/>'


def labels(rows: list[Token], cell: int, left: int) -> Iterator[str]:
    """The tokens and their positions at the side, and the tokens once more at the top."""
    yield f'<text class="quiet" x="18" y="{TOP - 8}">token</text>'
    yield f'<text class="quiet" x="{left - 6}" y="{TOP - 8}" text-anchor="end">position</text>'
    for i, row in enumerate(rows):
        y, middle = TOP + i * cell, cell // 2 + 4
        gone = "gone" if row.taken_back else ""
        turned = f'transform="translate({left + i * cell + middle},{TOP - 5}) rotate(-90)"'
        yield f'<rect x="8" y="{y}" width="4" height="{cell}" fill="{THREADS[row.thread]}"/>'
        yield f'<text class="{gone}" x="18" y="{y + middle}">{short(row.text, LONGEST)}</text>'
        yield f'<text x="{left - 6}" y="{y + middle}" text-anchor="end">{row.position}</text>'
        yield f'<text class="{gone or "quiet"}" {turned}>{short(row.text, 12)}</text>'


def legend(rows: list[Token], names: list[str], y: int) -> Iterator[str]:
    """Which colour is which thread, and which pattern which origin."""
    x = 8
    for number, name in enumerate(names):
        yield from swatch(x, y, THREADS[number], f"thread {name}")
        x += 110
    x = 8
    for origin in ORIGINS:
        if any(row.origin == origin for row in rows):
            yield from swatch(x, y + 20, f"url(#{origin}0)", ORIGINS[origin])
            x += 34 + 7 * len(ORIGINS[origin])
    if any(row.taken_back for row in rows):
        yield f'<text class="gone" x="{x}" y="{y + 30}">taken back</text>'


def draw(trace: Trace, words: Words) -> str:
    """The picture of a trace."""
    rows = tokens(trace, words)
    left = 60 + LETTER * max(len(row.text[:LONGEST]) for row in rows)
    cell = min(CELL, (WIDTH - left - 8) // len(rows))
    bottom = TOP + len(rows) * cell
    width, height = max(NARROWEST, left + len(rows) * cell + 8), bottom + 52
    body = [
        *labels(rows, cell, left),
        *grid(rows, cell, left),
        *legend(rows, [thread.label for thread in trace.threads], bottom + 10),
    ]
    return picture(width, height, fills({(row.origin, thread) for row in rows for thread in (row.thread, 0)}), body)


def main(folder: Path) -> None:
    """Draw every scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        (folder / f"{name}.svg").write_text(draw(*scene.play()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("layouts"))
