"""ThreadWeaver's pipeline: steps to threads, a check of each thread, small edits that take references out, outlines.

The stages of its released code (data_generation/, steps 1 to 5). Threads do not nest: what would be a block in a thread
is text. Two of its faults are not kept: a thread that fails its check is no thread here, and an edit must name a text
that stands in the thread exactly once, where theirs replaced every occurrence.

Source: ThreadWeaver (2512.07843) and its released code.
"""

import json
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from rl.rewriting.draft import Draft
from rl.rewriting.nodes import Block, Nodes, Passage, blocks, plain, with_blocks
from rl.rewriting.outlines import CONTEXT_LINES, LEAST_LENGTH, is_one_a_path, parse_outlines
from rl.rewriting.stage import Pipeline, RejectionError, ReplyError, Stage, last_lines
from rl.rewriting.steps import STEPS

LEAST_GAIN = 200  # characters of the threads of a block beside its longest one; as in its step 2
ALLOWED_LINES = 5  # before the block, that a thread may refer to; as in its step 3
FORBIDDEN_LINES = 5  # at either end of the thread before, that it may not refer to; as in its step 3
_VERDICT = re.compile(r"([0-9]{1,4})\s*[:.]\s*\**(passed|failed)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Edit:
    """Text of a thread, and what stands there instead."""

    src: str
    dest: str


def parse_verdicts(reply: str) -> list[bool]:
    """Lines ``2: failed: why``, one for each thread in order: whether it passed.

    Raises:
        ReplyError: there is none, or they are not numbered from 1.
    """
    found = [match for line in reply.splitlines() if (match := _VERDICT.match(line.strip(" *-")))]
    if not found or [int(match[1]) for match in found] != list(range(1, len(found) + 1)):
        raise ReplyError("has no verdicts numbered from 1")
    return [match[2].lower() == "passed" for match in found]


def parse_edits(reply: str) -> list[Edit]:
    """A JSON list of objects with texts under ``src`` and ``dest``.

    Raises:
        ReplyError: there is no such list.
    """
    start, stop = reply.find("["), reply.rfind("]")
    try:
        found = json.loads(reply[start : stop + 1])
    except (ValueError, RecursionError):  # no JSON, or nested without end
        raise ReplyError("is no JSON list of edits") from None
    if not isinstance(found, list) or not all(_is_edit(one) for one in found):
        raise ReplyError("is no JSON list of edits")
    return [Edit(one["src"], one["dest"]) for one in found]


def _is_edit(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("src", "dest"))


def edited(text: str, edits: list[Edit]) -> str | None:
    """A text with its edits, in order; None if one names what does not stand in it exactly once."""
    for edit in edits:
        if not edit.src or text.count(edit.src) != 1:
            return None
        text = text.replace(edit.src, edit.dest)
    return text


def check_verdicts(draft: Draft, number: int, verdicts: list[bool]) -> str | None:
    """One verdict a thread."""
    return None if is_one_a_path(draft, number, verdicts) else "has not one verdict for each thread"


def check_edits(draft: Draft, number: int, edits: list[Edit]) -> str | None:
    """Edits name text of the thread, and leave at least half of it."""
    before = _later_threads(draft)[number][2]
    after = edited(before, edits)
    if after is None:
        return "edits what is not in the thread exactly once"
    return None if len(after) >= LEAST_LENGTH * len(before) else "lost more than half of a thread"


def check_outlines(draft: Draft, number: int, outlines: list[str]) -> str | None:
    """One outline a thread."""
    return None if is_one_a_path(draft, number, outlines) else "has not one outline for each thread"


def flat(draft: Draft) -> Draft:
    """The draft with threads that hold text alone, and without blocks that are not worth it; see `LEAST_GAIN`.

    Raises:
        RejectionError: there is no block left.
    """

    def change(block: Block) -> Nodes:
        threads = [plain(path) for path in block.paths]
        lengths = [len(thread.strip()) for thread in threads]
        if len(threads) < 2 or sum(lengths) - max(lengths) < LEAST_GAIN:
            return tuple(node for path in block.paths for node in path)
        return (Block(tuple((Passage(thread),) for thread in threads)),)

    found = replace(draft, nodes=with_blocks(draft.nodes, change))
    if not blocks(found.nodes):
        raise RejectionError("has no threads that are long enough")
    return found


def _of_passed(draft: Draft, verdicts: list[list[bool]]) -> Draft:
    """Each block up to the first thread that failed; that and what comes after it follow as text, which sees all."""
    given = iter(verdicts)

    def change(block: Block) -> Nodes:
        passed = next(given)
        kept = passed.index(False) if False in passed else len(passed)
        return (Block(block.paths[:kept]), *[node for path in block.paths[kept:] for node in path])

    return flat(replace(draft, nodes=with_blocks(draft.nodes, change)))


def _later_threads(draft: Draft) -> list[tuple[str, str, str]]:
    """Every thread but the first of its block: the text before the block, the thread before, and its own text."""
    found = []
    for place in blocks(draft.nodes):
        texts = [plain(path) for path in place.block.paths]
        found += [(place.before, before, text) for before, text in pairwise(texts)]
    return found


def _with_edits(draft: Draft, edits: list[list[Edit]]) -> Draft:
    given = iter(edits)

    def change(block: Block) -> Nodes:
        later = [edited(plain(path), next(given)) for path in block.paths[1:]]
        return (Block((block.paths[0], *[(Passage(text),) for text in later if text is not None])),)

    return replace(draft, nodes=with_blocks(draft.nodes, change))


def _with_outlines(draft: Draft, outlines: list[list[str]]) -> Draft:
    given = iter(outlines)
    return replace(draft, nodes=with_blocks(draft.nodes, lambda block: (replace(block, outlines=tuple(next(given))),)))


def write(draft: Draft, answer: str) -> str:
    """The training text as its sanitiser leaves it: reasoning in ``<think>``, then the answer."""
    parts = []
    for node in draft.nodes:
        if isinstance(node, Passage):
            parts.append(f"{node.text.strip()}\n")
            continue
        outlines = "".join(f"<Outline>{number}: {text}</Outline>\n" for number, text in enumerate(node.outlines, 1))
        threads = [plain(path).strip() for path in node.paths]
        written = "".join(f"<Thread>\n{number}: {text}\n</Thread>" for number, text in enumerate(threads, 1))
        parts.append(f"<Parallel>\n<Outlines>\n{outlines}</Outlines>\n{written}\n</Parallel>\n")
    return f"<think>\n{''.join(parts)}</think>\n\n{answer}".rstrip()


def _block_variables(draft: Draft) -> list[dict[str, object]]:
    return [
        {
            "before": last_lines(place.before, CONTEXT_LINES),
            "threads": [plain(path).strip() for path in place.block.paths],
        }
        for place in blocks(draft.nodes)
    ]


def _ends(text: str) -> str:
    """The first and the last lines of a thread."""
    lines = text.strip().splitlines()
    if len(lines) <= 2 * FORBIDDEN_LINES:
        return "\n".join(lines)
    return "\n".join([*lines[:FORBIDDEN_LINES], "...", *lines[-FORBIDDEN_LINES:]])


CHECK: Stage[list[bool]] = Stage(
    "threadweaver_check",
    asks=_block_variables,
    parse=parse_verdicts,
    check=check_verdicts,
    apply=_of_passed,
)
EDITS: Stage[list[Edit]] = Stage(
    "threadweaver_edits",
    asks=lambda draft: [
        {"before": last_lines(before, ALLOWED_LINES), "other": _ends(other), "thread": text.strip()}
        for before, other, text in _later_threads(draft)
    ],
    parse=parse_edits,
    check=check_edits,
    apply=_with_edits,
)
OUTLINES: Stage[list[str]] = Stage(
    "threadweaver_outlines", asks=_block_variables, parse=parse_outlines, check=check_outlines, apply=_with_outlines
)
_LAST: Stage[Any] = STEPS[-1]
FLAT = replace(_LAST, apply=lambda draft, replies: flat(_LAST.apply(draft, replies)))
THREADWEAVER = Pipeline("threadweaver", write, [*STEPS[:-1], FLAT, CHECK, EDITS, OUTLINES])
