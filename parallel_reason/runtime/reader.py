"""Reads flat text as a run would have written it, thread by thread; `replay` makes traces and problems of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from parallel_reason.dialects.base import ChildSpec, Dialect, Insert, Join, Reject, Rewrite, StartFork, ids_of
from parallel_reason.dialects.checks import Problem
from parallel_reason.dialects.form import Form
from parallel_reason.dialects.tags import Tags
from parallel_reason.runtime import transitions
from parallel_reason.runtime.live_thread import LiveFork, LiveThread
from parallel_reason.text import StopTexts, decode

DEEPEST = 64  # how far blocks may nest


@dataclass(slots=True)
class _Awaited:
    """The children of a fork that a text may hold.

    Attributes:
        form: whether the text says how many there are, and which may stand in the place of another.
        asked: those of the dialect; ``left`` those that have not come.
    """

    form: Form
    asked: tuple[ChildSpec, ...]
    left: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.left = list(range(len(self.asked)))

    def next(self, read: int) -> list[int]:
        """Which may come after so many were read, the one that is due first."""
        if not self.form.open_ended:
            return self.left
        if len(set(self.asked)) == 1:
            return [0]
        return [number for number in (read, *self.form.renamed) if number in self.left]

    def missing(self, read: int) -> list[int]:
        """Those that should have come, when no more come."""
        return self.next(0)[:1] if self.form.open_ended and not read else [] if self.form.open_ended else self.left


@dataclass(slots=True)
class _Piece:
    """A child as it stands in the text.

    Attributes:
        ids: its tokens, from its tag on, to its end.
        blanks: that follow.
    """

    ids: list[int]
    blanks: list[int]


class Reader:
    """Reads a text once.

    Attributes:
        root: the tree of live threads, all of which have ended.
        at: the next token to read.
        breaks: where no run could have written the text; ``notes``: what is wrong with what one could have written.
        missing: texts of the runtime that do not come any more.
    """

    def __init__(self, dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> None:
        """Read all of ``ids``, the text after ``prompt``."""
        self.form = dialect.form
        self.dialect = dialect
        self.unbounded: Any = replace(dialect, **self.form.options) if self.form.options else dialect  # type: ignore[type-var]
        self.keeps = dialect.join_rule != "message"  # the text's own tokens, not the runtime's
        self.overlaid = dialect.join_rule == "graft" and not self.form.blanks_count
        self.tokenizer, self.ids = tokenizer, ids
        self.tags = Tags(dialect.tags, tokenizer)
        self.eos_ids = frozenset({tokenizer.eos_token_id} - {None})
        self.at = 0
        self.breaks: list[Problem] = []
        self.notes: list[Problem] = []
        self.missing: set[str] = set()
        self.root = transitions.start(prompt)
        self.thread(self.root)
        rest = ids[self.at :]
        if len(rest) == 1 and rest[0] in self.eos_ids and ids[self.at - 1] not in self.eos_ids:
            transitions.sample(self.root, transitions.Sample(rest))  # a training row ends so, whatever a run stops at
        elif rest:
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
        transitions.note_failed_blocks(live, self.dialect, self.tokenizer)
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
        if stopped and self.join_block(live, start):
            return False
        if self.form.opens_child:
            before = live.sampled[live.sampled_before_join :]
            for match in self.tags.meant([*before, *self.ids[start : self.at]]):
                if match.name in self.form.opens_child and match.start >= len(before):
                    what = f"{self.tags.literals[match.name]} begins no child of a fork"
                    self.breaks.append(Problem(start + match.start - len(before), what))
        transitions.sample(live, transitions.Sample(self.ids[start : self.at]))
        if stopped:
            live.stopped_at = transitions.stopped_at(token, stops, self.eos_ids)
        return stopped

    def join_block(self, live: LiveThread, start: int) -> bool:
        """Read a join that stands in a row without its fork, if the tokens from ``start`` on end in its first tag."""
        matches = self.tags.matches(self.ids[start : self.at]) if self.form.join_block else []
        if self.form.join_block is None or not matches or matches[-1].stop != self.at - start:
            return False
        first = start + matches[-1].start
        text, ends = self.tags.text_and_ends(self.ids[first:])
        found = self.form.join_block.match(text, text.index(self.tags.literals[matches[-1].name]))
        if found is None:
            return False
        self.at = first + next(count for count, end in enumerate(ends, start=1) if end >= found.end())
        transitions.sample(live, transitions.Sample(self.ids[start:first]))
        transitions.write(live, [Insert(tuple(self.ids[first : self.at]))])
        return True

    def step(self, live: LiveThread) -> bool:
        """Apply what the dialect says; whether the thread samples on."""
        action = transitions.next_action(self.unbounded, live, self.tokenizer)
        if not isinstance(action, StartFork) or all(self.match(child.header) is None for child in action.children):
            action = transitions.next_action(self.dialect, live, self.tokenizer)
        if isinstance(action, StartFork):
            if self.at == len(self.ids) or live.depth == DEEPEST:
                reason = "the text ends" if self.at == len(self.ids) else f"nested {DEEPEST} deep"
                transitions.end(live, "length", reason)
                if self.form.join_block is None:
                    self.notes.append(Problem(max(0, self.at - 1), "a fork without children"))
                return False
            return self.fork(live, action)
        if isinstance(action, Join):
            return self.join(live, live.beside(action.key), [])
        if isinstance(action, Rewrite):
            self.read(action.inserts)
        if isinstance(action, Reject):
            self.notes.append(Problem(max(0, self.at - 1), action.reason))
        return transitions.apply(
            live, action, transitions.stop_text(live.sampled, self.dialect.stops(live.depth), self.tokenizer)
        )

    def fork(self, live: LiveThread, action: StartFork) -> bool:
        """Read the children, and the join if it follows them; whether the parent samples on."""
        inserts = self.read(action.inserts)
        headers = [self.text(child.header) for child in action.children]
        if self.keeps and not any(header[:1].isspace() for header in headers):
            inserts = (*inserts, Insert(tuple(self.blanks())))
        moved = len(ids_of(action.inserts)) - len(ids_of(inserts)) if self.overlaid else 0
        transitions.rewrite(live, Rewrite(action.take_back, inserts))
        fork = transitions.fork(live, self.dialect.join_rule, self.dialect.shares_prefix, key=action.key)
        awaited, pieces = _Awaited(self.form, action.children), list[_Piece]()
        lead: list[int] = []
        while (number := self.next_child(awaited, len(pieces))) is not None:
            header = action.children[number].header
            blanks = self.blanks() if self.keeps else []
            lead, start = lead if pieces else blanks, self.at
            self.at = self.match(header) or self.at
            if self.keeps:
                shift = moved + (header[0].shift if header else 0)
                header = (Insert((*lead, *self.ids[start : self.at]), shift),)
            self.thread(transitions.add_child(live, fork, ChildSpec(header)))
            pieces.append(_Piece(self.ids[start : self.at], self.blanks() if self.keeps else []))
        if self.form.drops_blanks and pieces:
            self.at -= len(pieces[-1].blanks)  # those before the join are the join's
        missing = [headers[number].strip() for number in awaited.missing(len(pieces))]
        self.breaks += [Problem(self.at, f"no child that begins {header!r}") for header in missing]
        return True if action.key is not None else self.join(live, fork, pieces)

    def next_child(self, awaited: _Awaited, read: int) -> int | None:
        """Which child follows, no more waited for; None if none does."""
        due = awaited.next(read)
        for number in due:
            header = awaited.asked[number].header
            if self.match(header) is not None:
                if number != due[0] and not self.form.open_ended:
                    what = f"a child that begins {self.text(header).strip()!r} out of order"
                    self.breaks.append(Problem(self.at, what))
                awaited.left = [other for other in awaited.left if other != number]
                return number
        return None

    def join(self, live: LiveThread, fork: LiveFork, pieces: Sequence[_Piece]) -> bool:
        """Read a join; whether the parent samples on."""
        if self.at == len(self.ids):
            transitions.end(live, "length", "the text ends")
            self.notes.append(Problem(max(0, self.at - 1), "the text ends before the join"))
            return False
        graft = self.dialect.join_rule == "graft"
        continuation = self.dialect.join(live.thread_view(), [child.result() for child in fork.children])
        closes = continuation.closes or (Rewrite(),) * len(pieces)
        ends = []
        for child, close, piece in zip(fork.children, closes, pieces, strict=False):
            blank = self.keeps and not self.bare(ids_of(close.inserts))
            transitions.rewrite(child, Rewrite(close.take_back, () if blank else close.inserts))
            ends.append(child.view.position)
            if not self.form.drops_blanks and (graft or child is fork.children[0]):
                transitions.write(child, [Insert(tuple(piece.blanks))])
        transitions.join(live, fork)
        copies = [insert for insert in continuation.inserts if insert.copied]
        written = tuple(insert for insert in continuation.inserts if not insert.copied)
        own = self.read(written)
        if self.overlaid and own and ends:
            blanks = len(ids_of(closes[0].inserts))
            shift = max(ends) + written[0].shift + (0 if self.bare(ids_of(closes[0].inserts)) else blanks)
            own = (replace(own[0], shift=shift - live.view.position), *own[1:])
        for copy, piece in zip(copies, pieces[len(pieces) - len(copies) :], strict=False):
            blanks_too = [] if self.form.drops_blanks else piece.blanks
            transitions.write(live, [replace(copy, ids=(*piece.ids, *blanks_too))])
        transitions.write(live, own)
        if continuation.ends is not None:
            transitions.end(live, "finished", continuation.ends)
        return continuation.ends is None

    def read(self, inserts: Iterable[Insert]) -> tuple[Insert, ...]:
        """Read what the runtime wrote: the text's own tokens of it, where these are kept.

        Where it is not there, go on after it, if it comes later.
        """
        inserts, start = tuple(inserts), self.at
        places = range(start, start + 1 if self.text(inserts) in self.missing else len(self.ids) + 1)
        found = next(((at, stop) for at in places if (stop := self.match(inserts, at)) is not None), None)
        if found is None:
            self.missing.add(self.text(inserts))
        if found is None or found[0] != start:
            self.breaks.append(Problem(start, f"{self.text(inserts).strip()!r} does not follow"))
        if found is None:
            return inserts
        self.at = found[1]
        return (replace(inserts[0], ids=tuple(self.ids[found[0] : self.at])),) if inserts and self.keeps else inserts

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

    def blanks(self) -> list[int]:
        """Read all blanks that follow."""
        start = self.at
        while self.at < len(self.ids) and self.ids[self.at] not in self.eos_ids and not self.bare([self.ids[self.at]]):
            self.at += 1
        return self.ids[start : self.at]

    def bare(self, ids: list[int]) -> str:
        """The text of tokens without its blanks."""
        return "".join(decode(self.tokenizer, ids).split())

    def text(self, inserts: Iterable[Insert]) -> str:
        """What the runtime writes, as text."""
        return decode(self.tokenizer, ids_of(inserts))
