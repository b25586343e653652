"""What both pipelines ask of a block: an outline for each of its paths, and how much a changed text may lose."""

import re
from collections.abc import Sized

from rl.rewriting.draft import Draft
from rl.rewriting.nodes import blocks
from rl.rewriting.stage import ReplyError

CONTEXT_LINES = 50  # before a block, in a prompt; as in ThreadWeaver's step 4
LEAST_LENGTH = 0.5  # of a text that was changed, over what it was; as in ThreadWeaver's step 3
_ITEM = re.compile(r"([0-9]{1,4})\s*[:.]\s*(.*\S)")


def parse_outlines(reply: str) -> list[str]:
    """Lines ``1: target``, without their numbers.

    Raises:
        ReplyError: there is none, or they are not numbered from 1.
    """
    found = [match.groups() for line in reply.splitlines() if (match := _ITEM.match(line.strip(" *-")))]
    if not found or [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        raise ReplyError("has no outlines numbered from 1")
    return [outline for _, outline in found]


def is_one_a_path(draft: Draft, number: int, items: Sized) -> bool:
    """Whether there are as many as paths in block number ``number``."""
    return len(items) == len(blocks(draft.nodes)[number].block.paths)
