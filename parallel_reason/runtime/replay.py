r"""Flat text back to traces, and what is wrong with a text: the text shell over `transitions`.

`parse` replays a text (`parallel_reason.trace.flat` writes it) through the dialect, with the same actions as a run.
What the runtime writes, the headers of children and the text of joins, is matched by its text, blanks apart: training
text has newlines between paths that a run does not write. The trace then holds the runtime's own tokens, so that its
masks and positions are those of a run. Everything else is sampled. A thread at whose fork nothing follows, or whose
text ends before it does, has status ``length``. The round trip gives back every trace whose children all closed
themselves.

`problems` says what is wrong with a text. Against the checkers of the public systems it is stricter on numbers and
order (children come as their outlines do; NPR's format score and Multiverse's data checker compare counts), on what
stands between children and before the join, which must be blank, and on ``</Summary>``, which Parallel-R1's leaves out.
It is laxer on content (NPR's least lengths and ``\boxed``), on gaps in the numbers (ThreadWeaver's wants 1 to k),
on tags within a child, which need only balance (ThreadWeaver and NPR forbid them), and on whitespace.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from parallel_reason.dialects import options_of
from parallel_reason.dialects.base import ChildSpec, Dialect, Insert, Join, Reject, Rewrite, StartFork, ids_of
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import InputError
from parallel_reason.runtime import transitions
from parallel_reason.runtime.live_thread import LiveFork, LiveThread, records
from parallel_reason.text import StopTexts, decode
from parallel_reason.trace import Trace, tally

DEEPEST, FEWEST_ALIKE = 64, 2  # how far blocks may nest; children of a fork whose headers do not tell them apart


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which token of the text."""

    at: int
    what: str


def parse(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int], model: str = "") -> Trace:
    """The trace that has this text.

    Raises:
        InputError: the text has no such tree; naming the first token where it cannot be read.
    """
    replay = _Replay(dialect, tokenizer, prompt, ids)
    if replay.breaks:
        first = replay.breaks[0]
        raise InputError(f"not a text of dialect {dialect.name!r}: token {first.at}: {first.what}")
    threads = records(replay.root)
    return Trace(
        dialect=dialect.name,
        dialect_options=options_of(dialect),
        model=model,
        prompt=decode(tokenizer, prompt),
        prompt_ids=prompt,
        threads=threads,
        ledger=tally(threads),
    )


def problems(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> list[Problem]:
    """What is wrong with a text, in order; nothing if it is well-formed."""
    replay = _Replay(dialect, tokenizer, prompt, ids)
    found = {*replay.breaks, *replay.notes, *_unbalanced(Tags(dialect.tags, tokenizer), ids)}
    return sorted(found, key=lambda problem: (problem.at, problem.what))


def _unbalanced(tags: Tags, ids: list[int]) -> Iterable[Problem]:
    """Tags that close nothing, and tags that nothing closes."""
    open_tags = []
    for match in tags.meant(ids):
        if f"{match.name}_end" in tags.literals:
            open_tags.append(match)
        elif match.name.endswith("_end") and match.name.removesuffix("_end") in tags.literals:
            if open_tags and f"{open_tags[-1].name}_end" == match.name:
                open_tags.pop()
            else:
                yield Problem(match.start, f"{tags.literals[match.name]} closes nothing")
    for match in open_tags:
        yield Problem(match.start, f"{tags.literals[match.name]} is not closed")


class _Replay:
    """Reads a text once, as a run would have written it.

    Attributes:
        at: the next token to read.
        breaks: where no run could have written the text; ``notes``: what is wrong with what one could have written.
        missing: texts of the runtime that do not come any more.
    """

    def __init__(self, dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> None:
        self.dialect, self.tokenizer, self.ids = dialect, tokenizer, ids
        self.eos_ids = frozenset({tokenizer.eos_token_id} - {None})
        self.at = 0
        self.breaks: list[Problem] = []
        self.notes: list[Problem] = []
        self.missing: set[str] = set()
        self.root = transitions.start(prompt)
        self.thread(self.root)
        if self.at < len(ids):
            self.breaks.append(Problem(self.at, "text after the end"))

    def thread(self, live: LiveThread) -> None:
        """Read a thread to its end."""
        sampling_on = self.step(live)
        while sampling_on:
            if self.at == len(self.ids):
                transitions.end(live, "length", "the text ends")
                break
            if self.sample(live):
                sampling_on = self.step(live)
        live.text = decode(self.tokenizer, [token for token in live.sampled if token not in self.eos_ids])

    def sample(self, live: LiveThread) -> bool:
        """Read what a thread sampled in one go; whether it stopped."""
        stops, start, stopped = self.dialect.stops(live.depth), self.at, False
        texts = StopTexts(self.tokenizer, stops.texts)
        while self.at < len(self.ids) and not stopped:
            token = self.ids[self.at]
            self.at += 1
            completed = bool(stops.texts) and texts.completed_by(token)
            stopped = token in self.eos_ids or token in stops.ids or completed
        transitions.sample(live, transitions.Sample(self.ids[start : self.at]))
        if stopped:
            live.stopped_at = transitions.stopped_at(token, stops, self.eos_ids)
        return stopped

    def step(self, live: LiveThread) -> bool:
        """Apply what the dialect says; whether the thread samples on."""
        action = transitions.next_action(self.dialect, live, self.tokenizer)
        if isinstance(action, StartFork):
            if self.at == len(self.ids) or live.depth == DEEPEST:
                reason = "the text ends" if self.at == len(self.ids) else f"nested {DEEPEST} deep"
                transitions.end(live, "length", reason)
                self.notes.append(Problem(max(0, self.at - 1), "a fork without children"))
                return False
            self.expect(action.inserts)
            transitions.rewrite(live, Rewrite(action.take_back, action.inserts))
            return self.fork(live, action)
        if isinstance(action, Join):
            return self.join(live, live.beside(action.key))
        if isinstance(action, Rewrite):
            self.expect(action.inserts)
        if isinstance(action, Reject):
            self.notes.append(Problem(max(0, self.at - 1), action.reason))
        return transitions.apply(
            live, action, transitions.stop_text(live.sampled, self.dialect.stops(live.depth), self.tokenizer)
        )

    def fork(self, live: LiveThread, action: StartFork) -> bool:
        """Read the children, and the join if it follows them; whether the parent samples on."""
        asked, rule = action.children, self.dialect.join_rule
        fork = transitions.fork(live, rule, self.dialect.shares_prefix, key=action.key)
        waiting, alike = list(asked), len(asked) > 1 and len(set(asked)) == 1
        while (spec := self.next_child(waiting, asked[0] if alike else None)) is not None:
            self.thread(transitions.add_child(live, fork, spec))
        waiting = waiting[: max(0, FEWEST_ALIKE - len(fork.children))] if alike else waiting
        self.breaks += [Problem(self.at, f"no child that begins {self.text(spec.header)!r}") for spec in waiting]
        return True if action.key is not None else self.join(live, fork)

    def join(self, live: LiveThread, fork: LiveFork) -> bool:
        """Read the join; whether the parent samples on."""
        if self.at == len(self.ids):
            transitions.end(live, "length", "the text ends")
            self.notes.append(Problem(max(0, self.at - 1), "the text ends before the join"))
            return False
        continuation = self.dialect.join(live.thread_view(), [child.result() for child in fork.children])
        for child, close in zip(fork.children, continuation.closes, strict=False):
            transitions.rewrite(child, close)
        transitions.join(live, fork)
        self.expect(insert for insert in continuation.inserts if not insert.copied)
        transitions.write(live, continuation.inserts)
        if continuation.ends is not None:
            transitions.end(live, "finished", continuation.ends)
        return continuation.ends is None

    def next_child(self, waiting: list[ChildSpec], alike: ChildSpec | None) -> ChildSpec | None:
        """Read the header of a child that is waited for, and take it off the list; None if none follows."""
        for number, spec in enumerate(waiting or ([alike] if alike else [])):
            stop = self.match(spec.header)
            if stop is not None:
                if number:
                    self.breaks.append(Problem(self.at, f"a child that begins {self.text(spec.header)!r} out of order"))
                self.at = stop
                return waiting.pop(number) if waiting else spec
        return None

    def expect(self, inserts: Iterable[Insert]) -> None:
        """Read what the runtime wrote; where it is not there, go on after it, if it comes later."""
        inserts, start = tuple(inserts), self.at
        places = range(start, start + 1 if self.text(inserts) in self.missing else len(self.ids) + 1)
        found = next(((at, stop) for at in places if (stop := self.match(inserts, at)) is not None), None)
        if found:
            self.at = found[1]
        else:
            self.missing.add(self.text(inserts))
        if not found or found[0] != start:
            self.breaks.append(Problem(start, f"{self.text(inserts)!r} does not follow"))

    def match(self, inserts: tuple[Insert, ...], at: int | None = None) -> int | None:
        """Where the tokens end that say the same as ``inserts``, blanks apart; None if others follow."""
        start = stop = self.at if at is None else at
        written = ids_of(inserts)
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

    def text(self, inserts: Iterable[Insert]) -> str:
        """What the runtime writes, as text."""
        return decode(self.tokenizer, ids_of(inserts)).strip()
