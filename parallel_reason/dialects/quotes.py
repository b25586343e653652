"""Tags that a model quotes are text: in fenced code, in inline code, directly after an opening quotation mark.

A model that explains a grammar, or writes code about it, names its tags without meaning them. What a thread sampled
before a tag decides, from its start or its newest join on; what stands in a prompt never does.

- Fenced code: a line that begins with three or more backticks or tildes opens it, indented or in a block quote too. It
  lasts to a line of at least as many of the same character and nothing else, or to the end.
- Inline code: a run of backticks opens it, and a run of the same length closes it, in the same line. Two apostrophes
  close two backticks too, which is how LaTeX quotes.
- A quotation mark opens at the beginning of a line, after a blank, an opening bracket, another quotation mark that
  opens, an equals sign, a colon or a dash. Anywhere else it closes, or is an apostrophe: ``don't<Parallel>`` forks.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence

_FENCE = re.compile(r"^[^\S\n]*(?:>[^\S\n]*)*(`{3,}|~{3,})(.*)$")
_TICKS = re.compile(r"`+|''")
# A closing mark of one language opens in another, so what stands before it decides.
_MARKS = "\"'“”„‘’‚«»‹›「『"  # noqa: RUF001
_OPENS_AFTER = "([{=:–—"  # noqa: RUF001
_ANY = re.compile(f"[`~{_MARKS}]")


def unquoted(pattern: re.Pattern[str], text: str, start: int = 0) -> list[re.Match[str]]:
    """The matches of a pattern from character ``start`` of a text on that do not begin in quotes or code."""
    found = list(pattern.finditer(text, start))
    quoted = quoted_at(text, [match.start() for match in found])
    return [match for match, is_text in zip(found, quoted, strict=True) if not is_text]


def may_quote(text: str) -> bool:
    """Whether anything in a text can quote."""
    return bool(_ANY.search(text))


def is_quoted(before: str) -> bool:
    """Whether a tag that stands right after ``before`` is quoted."""
    return quoted_at(before, [len(before)])[0]


def quoted_at(text: str, places: Sequence[int]) -> list[bool]:
    """Whether tags that stand at these places of a text are quoted, [places]; takes linear time.

    Args:
        places: character offsets, in ascending order.
    """
    if not places or not may_quote(text):
        return [False] * len(places)
    quoted: list[bool] = []
    fence, start = "", 0
    for line in text.split("\n"):
        of_line = places[len(quoted) : bisect_right(places, start + len(line))]
        here = [place - start for place in of_line]
        if here:
            quoted += _closing_ends(line, fence, here) if fence else _quoted_in_line(line, here)
        if not fence:
            fence = _opened_by(line)
        elif _closes(fence, line):
            fence = ""
        start += len(line) + 1
    return quoted


def _closing_ends(line: str, fence: str, places: Sequence[int]) -> list[bool]:
    """In fenced code all is quoted, but for what stands behind its closing characters."""
    closing = _FENCE.match(line)
    end = closing.end(1) if closing and closing[1].startswith(fence) else None
    return [end is None or place < end or bool(line[end:place].strip()) for place in places]


def _quoted_in_line(line: str, places: Sequence[int]) -> list[bool]:
    """Outside of fenced code."""
    opening = _FENCE.match(line)
    after = opening.end(1) if opening else len(line) + 1
    runs = list(_TICKS.finditer(line))
    quoted, opened, number = [], "", 0
    for place in places:
        while number < len(runs) and runs[number].start() < place:
            run = runs[number].group()
            if not opened:
                opened = run if run[0] == "`" else ""
            elif run in (opened, "''" if opened == "``" else opened):
                opened = ""
            number += 1
        fenced = place >= after and bool(_opened_by(line[:place]))
        quoted.append(fenced or bool(opened) or _after_opening_mark(line, place))
    return quoted


def _opened_by(line: str) -> str:
    """The characters with which a line opens fenced code; empty if it does not."""
    found = _FENCE.fullmatch(line)
    return found[1] if found and ("`" not in found[1] or "`" not in found[2]) else ""


def _closes(fence: str, line: str) -> bool:
    found = _FENCE.fullmatch(line)
    return found is not None and found[1].startswith(fence) and not found[2].strip()


def _after_opening_mark(line: str, place: int) -> bool:
    mark = place
    while mark and line[mark - 1] in _MARKS:
        mark -= 1
    opens = not mark or line[mark - 1].isspace() or line[mark - 1] in _OPENS_AFTER
    return opens and mark < place
