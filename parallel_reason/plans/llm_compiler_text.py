"""The plan text of LLMCompiler, read while it is written.

    1. search("Mount Everest")
    2. math("half of its height in meter?", ["$1"])
    Thought: I can answer the question now.
    3. join()<END_OF_PLAN>

Source: SqueezeAILab/LLMCompiler, src/llm_compiler/planner.py and output_parser.py, and its configs. A call is complete
as soon as its bracket closes. Their own example plans have lines without the last bracket: it is added at the end of a
line.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator

from parallel_reason.plans.arguments import arguments
from parallel_reason.plans.brackets import Brackets
from parallel_reason.plans.call import Call, Problem
from parallel_reason.plans.references import WRITTEN
from parallel_reason.plans.streams import closing

END_OF_PLAN = "<END_OF_PLAN>"
HEAD = re.compile(r"\s*(?:(\d{1,9})\.\s*)?(\w+)\(")
NUMBERED = re.compile(r"\s*\d+\.")
AFTER = re.compile(rf"(\s#\s*\w*|{re.escape(END_OF_PLAN)})\s*$")  # what may follow a call in its line
MAX_LINE = 200_000  # characters


class PlanText:
    """Reads plan text piece by piece.

    Attributes:
        joined: whether ``join()`` was read; what comes after it is no part of the plan.
    """

    def __init__(self) -> None:
        """Nothing was read."""
        self.joined = False
        self._line: list[str] = []
        self._head: re.Match[str] | None = None
        self._brackets = Brackets()
        self._line_is_read = False
        self._numbers: set[int] = set()
        self._too_early: dict[int, int] = {}  # number of a call that was not there yet, to the call that wrote it

    def feed(self, delta: str) -> list[Call | Problem]:
        """More text; what is complete with it."""
        found: list[Call | Problem] = []
        for char in delta:
            if self.joined:
                break
            if char == "\n":
                found += self._end_of_line()
            elif not self._line_is_read:
                found += self._character(char)
        return found

    def end(self) -> list[Call | Problem]:
        """The text has ended. A call that it was within is not run: its arguments are not all there."""
        if self.joined:
            return []
        if self._head is not None and self._head[1] and self._head[2] != "join" and not self._line_is_read:
            return [Problem(f"the plan's text ends within call {self._head[1]}, which is left out")]
        found = self._end_of_line()
        return found if self.joined else [*found, Problem("the plan's text ends without join()")]

    def _character(self, char: str) -> list[Call | Problem]:
        self._line.append(char)
        if len(self._line) > MAX_LINE:
            self._line_is_read = True
            return [Problem(f"a line of the plan has more than {MAX_LINE} characters and is left out")]
        if self._head is not None:
            self._brackets.feed(char)
            return [] if self._brackets.open else self._call(self._written()[:-1])
        if char == "(":
            self._head = HEAD.fullmatch(self._written_line())
            if self._head is None:
                return self._no_call()
            self._brackets.feed(char)
        return []

    def _end_of_line(self) -> list[Call | Problem]:
        found: list[Call | Problem] = []
        line = self._written_line()
        if not self._line_is_read:
            if self._head is not None:
                found = self._call(self._repaired())
            elif END_OF_PLAN in line:
                self.joined = True
            else:
                found = self._no_call()
        self._line, self._head, self._brackets, self._line_is_read = [], None, Brackets(), False
        return found

    def _call(self, written: str) -> list[Call | Problem]:
        """The call of this line, with what stands between its brackets."""
        assert self._head is not None
        self._line_is_read = True
        number, tool = self._head.groups()
        if tool == "join":
            self.joined = True
            return []
        if number is None:
            return []  # a line of plain text with brackets
        n = int(number)
        args, kwargs = arguments(written, n)
        found: list[Call | Problem] = [Call(str(n), tool, args, kwargs, written=f"{n}. {tool}({written})")]
        if n in self._too_early:
            found.append(Problem(f"call {self._too_early[n]} has ${n}, which came after it and was read as text"))
        self._numbers.add(n)
        later = (int(plain) for _, plain in WRITTEN.findall(written) if plain and int(plain) >= n)
        self._too_early |= dict.fromkeys(later, n)
        return found

    def _no_call(self) -> list[Call | Problem]:
        """The line is text, such as a thought; a numbered one was meant as a call."""
        self._line_is_read = True
        line = self._written_line()
        return [Problem(f"no call: {line.strip()[:80]!r}")] if NUMBERED.match(line) else []

    def _repaired(self) -> str:
        """The arguments of a line that ended within its brackets."""
        written = AFTER.sub("", self._written()).rstrip()
        if self._brackets.quote is not None:
            return written.removesuffix(")")  # a quote that was no quote
        return written + "".join(reversed(self._brackets.open[1:]))

    def _written(self) -> str:
        assert self._head is not None
        return self._written_line()[self._head.end() :]

    def _written_line(self) -> str:
        return "".join(self._line)


async def calls_in(deltas: AsyncIterable[str] | str) -> AsyncIterator[Call | Problem]:
    """The calls of a plan, each as soon as it is written; ends at ``join()``, which also ends ``deltas``."""
    text = PlanText()
    if isinstance(deltas, str):
        for item in text.feed(deltas):
            yield item
    else:
        async with closing(deltas) as pieces:
            async for delta in pieces:
                for item in text.feed(delta):
                    yield item
                if text.joined:
                    break
    for item in text.end():
        yield item
