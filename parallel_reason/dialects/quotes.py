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

_FENCE = re.compile(r"^[^\S\n]*(?:>[^\S\n]*)*(`{3,}|~{3,})(.*)$", re.MULTILINE)
_TICKS = re.compile(r"`+|''")
# A closing mark of one language opens in another, so what stands before it decides.
_MARKS = "\"'“”„‘’‚«»‹›「『"  # noqa: RUF001
_OPENS_AFTER = "([{=:–—"  # noqa: RUF001


def is_quoted(before: str) -> bool:
    """Whether a tag that stands right after ``before`` is quoted."""
    lines, newline, line = before.rpartition("\n")
    fence = _open_fence(lines + newline)
    if fence:
        return not _closes(fence, line)
    return bool(_opened_by(line)) or _in_inline_code(line) or _after_opening_mark(line)


def _open_fence(lines: str) -> str:
    """The characters that opened the fenced code in which the next line stands; empty outside of any."""
    fence = ""
    for found in _FENCE.finditer(lines):
        if not fence:
            fence = _opened_by(found.group())
        elif _closes(fence, found.group()):
            fence = ""
    return fence


def _opened_by(line: str) -> str:
    """The characters with which a line opens fenced code; empty if it does not."""
    found = _FENCE.fullmatch(line)
    return found[1] if found and ("`" not in found[1] or "`" not in found[2]) else ""


def _closes(fence: str, line: str) -> bool:
    found = _FENCE.fullmatch(line)
    return found is not None and found[1].startswith(fence) and not found[2].strip()


def _in_inline_code(line: str) -> bool:
    opened = ""
    for run in _TICKS.findall(line):
        if not opened:
            opened = run if run[0] == "`" else ""
        elif run in (opened, "''" if opened == "``" else opened):
            opened = ""
    return bool(opened)


def _after_opening_mark(line: str) -> bool:
    before = line.rstrip(_MARKS)
    opens = not before or before[-1].isspace() or before[-1] in _OPENS_AFTER
    return opens and len(before) < len(line)
