r"""The flat text form of a trace, and back: training text to traces, and traces to what the public systems show.

`flatten` writes every token once, depth first: a thread's own up to a fork, then each child with all below it, then the
thread's next. Where a relinearised join laid the children down once more, these copies stand for all but the first.
Tokens that a dialect took back are there too, as they were sampled.

`parse` replays such text through the dialect, with the same acts as the controller. What the controller writes, the
headers of children and the text of joins, is matched by its text, blanks apart: training text has newlines between
paths that the runtime has not. The trace then holds the controller's own tokens, so that its masks and positions are
those of a run. Everything else is sampled. A thread at whose fork nothing follows, or whose text ends before it does,
has status ``length``. The round trip gives back every trace whose children all closed themselves.

`problems` says what is wrong with a text. Against the checkers of the public systems it is stricter on numbers and
order (children come as their outlines do; NPR's format score and Multiverse's data checker compare counts), on what
stands between children and before the join, which must be blank, and on ``</Summary>``, which Parallel-R1's leaves out.
It is laxer on what is said (NPR's least lengths and ``\boxed``), on gaps in the numbers (ThreadWeaver's wants 1 to k),
on tags within a child, which need only balance (ThreadWeaver and NPR forbid them), and on whitespace.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from parallel_reason.dialects.base import Amend, Child, Dialect, Glue, Malformed, Split, ids_of
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import InputError
from parallel_reason.ledger import tally
from parallel_reason.line import Line
from parallel_reason.text import TextStream, decode
from parallel_reason.trace import Fork, Thread, Trace

DEEPEST, FEWEST_ALIKE = 64, 2  # how far blocks may nest; children of a fork whose headers do not tell them apart


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which token of the text."""

    at: int
    what: str


def flatten(trace: Trace) -> list[int]:
    """All tokens after the prompt."""
    return _flat(trace.root)


def _flat(thread: Thread) -> list[int]:
    ids: list[int] = []
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                first = [child for child in fork.children[:1] if child.ran]
                shown = first if fork.join == "relinearise" else fork.children
                ids += [token for child in shown for token in _flat(child)]
        if place < len(thread.spans) and thread.spans[place].origin != "prompt":
            ids += thread.spans[place].ids
    return ids


def parse(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int], model: str = "") -> Trace:
    """The trace that has this text.

    Raises:
        InputError: the text has no such tree; naming the first token where it cannot be read.
    """
    replay = _Replay(dialect, tokenizer, prompt, ids)
    if replay.breaks:
        first = replay.breaks[0]
        raise InputError(f"not a text of dialect {dialect.name!r}: token {first.at}: {first.what}")
    root, text = replay.root.thread, decode(tokenizer, prompt)
    return Trace(dialect=dialect.name, model=model, prompt=text, root=root, ledger=tally(root))


def problems(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> list[Problem]:
    """What is wrong with a text, in order; nothing if it is well-formed."""
    replay = _Replay(dialect, tokenizer, prompt, ids)
    found = {*replay.breaks, *replay.notes, *_unbalanced(Tags(dialect.tags, tokenizer), ids)}
    return sorted(found, key=lambda problem: (problem.at, problem.what))


def _unbalanced(tags: Tags, ids: list[int]) -> Iterable[Problem]:
    """Tags that close nothing, and tags that nothing closes."""
    open_tags = []
    for mark in tags.marks(ids):
        if f"{mark.name}_end" in tags.literals:
            open_tags.append(mark)
        elif mark.name.endswith("_end") and mark.name.removesuffix("_end") in tags.literals:
            if open_tags and f"{open_tags[-1].name}_end" == mark.name:
                open_tags.pop()
            else:
                yield Problem(mark.start, f"{tags.literals[mark.name]} closes nothing")
    for mark in open_tags:
        yield Problem(mark.start, f"{tags.literals[mark.name]} is not closed")


class _Replay:
    """Reads a text once, as a run of the controller would have written it.

    Attributes:
        at: the next token to read.
        breaks: where no run could have written the text; ``notes``: what is wrong with what one could have written.
        lost: what the controller writes and does not come any more.
    """

    def __init__(self, dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> None:
        self.dialect, self.tokenizer, self.ids = dialect, tokenizer, ids
        self.eos = tokenizer.eos_token_id
        self.at = 0
        self.breaks: list[Problem] = []
        self.notes: list[Problem] = []
        self.lost: set[str] = set()
        self.root = Line(Thread(label="0"), depth=0)
        self.root.write([Glue(tuple(prompt))], "prompt")
        self.thread(self.root)
        if self.at < len(ids):
            self.breaks.append(Problem(self.at, "text after the end"))

    def thread(self, line: Line) -> None:
        """Read a thread to its end."""
        running = self.act(line)
        while running:
            if self.at == len(self.ids):
                line.end("length", "the text ends")
                break
            if self.sample(line):
                running = self.act(line)
        line.thread.text = decode(self.tokenizer, [token for token in line.sampled if token != self.eos])

    def sample(self, line: Line) -> bool:
        """Read what a thread sampled in one go; whether it stopped."""
        stops, start = self.dialect.stops(line.depth), self.at
        text, stream, stopped = "", TextStream(self.tokenizer), False
        longest = max(map(len, stops.texts), default=0)
        while self.at < len(self.ids) and not stopped:
            token = self.ids[self.at]
            self.at += 1
            if stops.texts:
                fresh = stream.add([token])
                text = text[max(0, len(text) - longest) :] + fresh
            stopped = token == self.eos or token in stops.ids or any(stop in text for stop in stops.texts)
        line.add(self.ids[start : self.at], [])
        if stopped:
            line.ended = "eos" if token == self.eos and token not in stops.ids else "stop"
        return stopped

    def act(self, line: Line) -> bool:
        """Do what the dialect says; whether the thread samples on."""
        act = self.dialect.step(line.view)
        if isinstance(act, Split):
            if self.at == len(self.ids) or line.depth == DEEPEST:
                line.end("length", "the text ends" if self.at == len(self.ids) else f"nested {DEEPEST} deep")
                self.notes.append(Problem(max(0, self.at - 1), "a fork without children"))
                return False
            self.expect(act.glue)
            line.amend(Amend(act.take_back, act.glue))
            return self.fork(line, act.children)
        if isinstance(act, Amend):
            self.expect(act.glue)
        if isinstance(act, Malformed):
            self.notes.append(Problem(max(0, self.at - 1), act.reason))
        return line.follow(act, self.tokenizer)

    def fork(self, line: Line, asked: tuple[Child, ...]) -> bool:
        """Read the children and the join; whether the parent samples on."""
        thread, rule = line.thread, self.dialect.join_rule
        born = sum(len(fork.children) for fork in thread.forks)
        fork = Fork(at=len(thread.spans), join=rule, shares_prefix=self.dialect.shares_prefix, children=[])
        thread.forks.append(fork)
        waiting, alike = list(asked), len(asked) > 1 and len(set(asked)) == 1
        while (ask := self.next_child(waiting, asked[0] if alike else None)) is not None:
            child = Thread(label=f"{thread.label}.{born + len(fork.children)}", parent=thread.label)
            fork.children.append(child)
            line.children.append(Line(child, line.depth + 1, line if fork.shares_prefix else None))
            line.children[-1].open(ask.header, line.critical_path)
            self.thread(line.children[-1])
        waiting = waiting[: max(0, FEWEST_ALIKE - len(fork.children))] if alike else waiting
        self.breaks += [Problem(self.at, f"no child that begins {self.text(ask.header)!r}") for ask in waiting]
        if self.at == len(self.ids):
            line.end("length", "the text ends")
            self.notes.append(Problem(max(0, self.at - 1), "the text ends before the join"))
            return False
        join = self.dialect.join(line.view, [child.returned for child in line.children])
        for ended, close in zip(line.children, join.closes, strict=False):
            ended.amend(close)
        line.joined(rule)
        self.expect(piece for piece in join.glue if not piece.copied)
        line.write(join.glue)
        if join.ends is not None:
            line.end("finished", join.ends)
        return join.ends is None

    def next_child(self, waiting: list[Child], alike: Child | None) -> Child | None:
        """Read the header of a child that is waited for, and take it off the list; None if none follows."""
        for number, ask in enumerate(waiting or ([alike] if alike else [])):
            stop = self.match(ask.header)
            if stop is not None:
                if number:
                    self.breaks.append(Problem(self.at, f"a child that begins {self.text(ask.header)!r} out of order"))
                self.at = stop
                return waiting.pop(number) if waiting else ask
        return None

    def expect(self, glue: Iterable[Glue]) -> None:
        """Read what the controller wrote; where it is not there, go on after it, if it comes later."""
        glue, start = tuple(glue), self.at
        places = range(start, start + 1 if self.text(glue) in self.lost else len(self.ids) + 1)
        found = next(((at, stop) for at in places if (stop := self.match(glue, at)) is not None), None)
        if found:
            self.at = found[1]
        else:
            self.lost.add(self.text(glue))
        if not found or found[0] != start:
            self.breaks.append(Problem(start, f"{self.text(glue)!r} does not follow"))

    def match(self, glue: tuple[Glue, ...], at: int | None = None) -> int | None:
        """Where the tokens end that say the same as ``glue``, blanks apart; None if others follow."""
        start = stop = self.at if at is None else at
        written = ids_of(glue)
        wanted, got = self.bare(written), ""
        while got != wanted:
            if stop == len(self.ids) or not wanted.startswith(got.rstrip("\ufffd")):
                return None
            stop += 1
            got = self.bare(self.ids[start:stop])
        blanks = len(written)
        while blanks and not self.bare(written[blanks - 1 :]):
            blanks -= 1
        for token in written[blanks:]:
            if self.ids[stop : stop + 1] == [token]:
                stop += 1
        return stop

    def bare(self, ids: list[int]) -> str:
        """The text of tokens without its blanks."""
        return "".join(decode(self.tokenizer, ids).split())

    def text(self, glue: Iterable[Glue]) -> str:
        """What the controller writes, as text."""
        return decode(self.tokenizer, ids_of(glue)).strip()
