"""Draw the layout of one trace of each dialect: which token sees which, at which position; see docs/layouts.

python docs/draw_layouts.py [FOLDER]

A session runs each dialect on `ScriptedEngine`, which writes given texts in place of a model, and `layout` gives the
mask and the positions of the trace.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from picture import THREADS, fills, picture, swatch

from parallel_reason import Session, Span, Trace, layout
from parallel_reason.dialects import bind, find
from parallel_reason.engines.scripted import ScriptedEngine

EOS = "<eos>"
WORD = r"</?\w+>|\n|[0-9.]+:| ?[^\s<]+| "
LINE = r"<eos>|[^\n]*\n|[^\n]+"


class PatternTokenizer:
    """A tokenizer whose tokens are the matches of ``pattern``: tags and words, or whole lines.

    Attributes:
        tokens: the text of every token id; text that is encoded for the first time adds its tokens.
    """

    eos_token_id = 0

    def __init__(self, tags: list[str], pattern: str = WORD) -> None:
        """The vocabulary begins with the end of text and ``tags``."""
        self.pattern = re.compile(pattern)
        self.tokens = [EOS, *tags]

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        found = self.pattern.findall(text)
        self.tokens += [token for token in dict.fromkeys(found) if token not in self.tokens]
        return [self.tokens.index(token) for token in found]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return "".join(self.tokens[token] for token in ids)

    def get_vocab(self) -> dict[str, int]:
        """The id of every token."""
        return {token: number for number, token in enumerate(self.tokens)}

    def convert_ids_to_tokens(self, token: int) -> str:
        """The text of one token."""
        return self.tokens[token]


@dataclass(frozen=True)
class Example:
    """A trace to draw.

    Attributes:
        dialect, options: what it is run with.
        texts: what the model writes: under the label of each thread, the text of each of its requests.
        prompt: of the root.
        pattern: of the tokenizer.
    """

    dialect: str
    texts: dict[str, list[str]]
    prompt: str = "2*3 ?"
    pattern: str = WORD
    options: dict[str, Any] = field(default_factory=dict)

    def run(self) -> tuple[Trace, PatternTokenizer]:
        """The trace, and the tokenizer of its ids."""
        tags = list(find(self.dialect).tags.values()) if self.pattern != LINE else []
        tokenizer = PatternTokenizer(tags, self.pattern)
        ids = tokenizer.encode(self.prompt)
        engine = ScriptedEngine.from_texts(tokenizer, self.texts)
        session = Session(engine, bind(self.dialect, tokenizer, **self.options))
        (trace,) = asyncio.run(session.run(ids))
        return trace, tokenizer


ATTEMPTS = {"0": ["try<Parallel>", " 6</Summary> So 6<eos>"], "0.0": ["2 + 2 + 2</Path>"], "0.1": ["3 + 3</Path>"]}
EXAMPLES = {
    "spawn_join": Example(
        "spawn_join",
        {
            "0": ["try<spawn>add<sep>halve</spawn>", " So 6<eos>"],
            "0.0": [" 2 + 2 + 2<return> 6</thread>"],
            "0.1": [" of what ?</thread>"],
        },
    ),
    "apr": Example(
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
    "multiverse": Example(
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
    "npr": Example(
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
    "threadweaver": Example(
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
    "parallel_r1": Example("parallel_r1", ATTEMPTS),
    "parallel_r1_seen": Example("parallel_r1", ATTEMPTS, options={"view": "seen"}),
    "parathinker": Example(
        "parathinker",
        {"0": [" So 6</summary>"], "0.0": [" 2 + 2 + 2</think1>"], "0.1": [" 3 + 3</think2>"]},
        options={"paths": 2},
    ),
    "ssft": Example(
        "ssft",
        {"0.0": [" 2 + 2 \\boxed{4}<eos>"], "0.1": [" 3 + 3 \\boxed{6}<eos>"], "0.2": [" 2 * 3 \\boxed{6}<eos>"]},
        options={"paths": 3},
        pattern=r"<eos>|<\|im_start\|>|" + WORD,
    ),
    "dc_cot": Example(
        "dc_cot",
        {
            "0": ["try<spawn_workers>", " So<answer> 6</answer><eos>"],
            "0.0": [" 2 + 4</worker_1>"],
            "0.1": [" 3 + 3</worker_2>"],
            "0.2": [" 6</worker_3>"],
        },
    ),
    "async_think": Example(
        "async_think",
        {
            "0": [
                "try<FORK-1>add</FORK-1>",
                "<FORK-2>halve</FORK-2>",
                " wait<JOIN-1>",
                "<JOIN-2>",
                "<ANSWER> 6</ANSWER>",
            ],
            "0.0": [" 2 + 4<RETURN> 6</RETURN>"],
            "0.1": [" 12 / 2<RETURN> 6</RETURN>"],
        },
        pattern=r"</?\w+-[0-9]>|" + WORD,
    ),
}

WIDTH, NARROWEST, TOP, CHARACTER, CELL = 800, 600, 92, 7, 15  # pixels
LONGEST = 24  # characters of a label
ORIGINS = {
    "prompt": "the prompt",
    "sampled": "the model wrote it",
    "injected": "the runtime wrote it",
    "copied": "a copy of a child's",
}


@dataclass(frozen=True)
class Token:
    """A row of the picture, and the column of the same token.

    Attributes:
        text: of the token.
        position: its position id.
        thread: index of its thread.
        origin: who wrote it; see `Span`.
        seen: whether it sees each token of the picture, [tokens].
        taken_back: whether its thread no longer saw it later.
    """

    text: str
    position: int
    thread: int
    origin: str
    seen: list[bool]
    taken_back: bool

    @property
    def fill(self) -> str:
        """The fill of its cells, as an attribute."""
        return f'fill="url(#{self.origin}{self.thread})"'


def tokens(trace: Trace, tokenizer: PatternTokenizer) -> list[Token]:
    """The tokens of a trace in the order of its layout."""
    row, mask = layout(trace), layout(trace).mask()
    spans: list[Iterator[Span]] = [iter([span for span in thread.spans if span.ids]) for thread in trace.threads]
    out = []
    for segment in row.segments:
        origin = next(spans[segment.thread]).origin
        later = np.concatenate([np.arange(s.start, s.stop) for s in row.segments if s.thread == segment.thread])
        for i in range(segment.start, segment.stop):
            text = tokenizer.tokens[row.ids[i]].strip() or "\\n"
            taken_back = not mask[later[later > i], i].all()  # its own thread went on and does not see it
            out.append(Token(text, int(row.positions[i]), segment.thread, origin, mask[i].tolist(), taken_back))
    return out


def short(text: str, length: int) -> str:
    """Text for a label, cut in the middle if it is too long: lines differ at their ends."""
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
    """The tokens and their positions at the side, and the tokens again at the top."""
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
    """The colour of each thread, and the pattern of each origin."""
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


def draw(trace: Trace, tokenizer: PatternTokenizer) -> str:
    """The picture of a trace."""
    rows = tokens(trace, tokenizer)
    left = 60 + CHARACTER * max(len(row.text[:LONGEST]) for row in rows)
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
    """Draw every example into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, example in EXAMPLES.items():
        (folder / f"{name}.svg").write_text(draw(*example.run()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("layouts"))
