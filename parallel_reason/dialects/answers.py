"""The answer in what a thread wrote, as text for people."""

import re

from parallel_reason.dialects.base import ThreadView
from parallel_reason.dialects.quotes import unquoted


def answer_ids(view: ThreadView) -> list[int]:
    """What a thread sampled after its newest join, without the end of text at which it stopped, [tokens]."""
    sampled = view.sampled_since_join
    return sampled[:-1] if view.stopped_at == "eos" else sampled


def without_lone_ends(text: str, tags: dict[str, str]) -> str:
    """A text without the closing tags that close nothing in it, such as those of a block that a join left open.

    Quoted tags are text, and stay.

    Args:
        tags: by name; ``NAME_end`` closes ``NAME``.
    """
    closes = {tags[f"{name}_end"]: literal for name, literal in tags.items() if f"{name}_end" in tags}
    kept, place, open_tags = [], 0, dict.fromkeys(closes.values(), 0)
    for match in unquoted(re.compile("|".join(map(re.escape, (*closes, *open_tags)))), text) if closes else ():
        tag = match.group()
        if tag in open_tags:
            open_tags[tag] += 1
        elif open_tags[closes[tag]]:
            open_tags[closes[tag]] -= 1
        else:
            kept.append(text[place : match.start()])
            place = match.end()
    return "".join([*kept, text[place:]])


def inside_last(text: str, start: str, end: str) -> str | None:
    """What follows the last ``start``, up to ``end`` if that comes; None without ``start``. Quoted ones are text."""
    opens = unquoted(re.compile(re.escape(start)), text)
    if not opens:
        return None
    ends = unquoted(re.compile(re.escape(end)), text)
    stop = next((match.start() for match in ends if match.start() >= opens[-1].end()), None)
    return text[opens[-1].end() : stop].strip()
