"""Everything that can happen to a live thread: write, sample, take back, fork, join, end. The one interpreter.

Pure: no engine, no clock, no event loop. The asyncio run (`run`) and the text replay (`replay`) call these and decide
nothing of their own about positions, visibility or what is recorded. Times are seconds from the start of the trace.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from parallel_reason.dialects.base import (
    Action,
    ChildSpec,
    Continue,
    Dialect,
    Finish,
    Insert,
    Reject,
    Rewrite,
    StoppedAt,
    Stops,
)
from parallel_reason.dialects.checks import failed_blocks
from parallel_reason.dialects.quotes import is_quoted
from parallel_reason.dialects.tags import Tags
from parallel_reason.runtime.live_thread import LiveFork, LiveThread
from parallel_reason.text import StopTexts, decode, reach
from parallel_reason.trace import JoinRule, MalformedFork, Origin, Span, Status
from parallel_reason.trace import view as views
from parallel_reason.trace.view import TokenTable


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens that a thread sampled in one request.

    Attributes:
        ids, logprobs: [tokens]; without log-probs, [0].
        top_logprobs: see `Span`, [tokens] or empty.
        policy_versions: of the weights that sampled each, [tokens]; empty if not known.
        started_s, ended_s: of the request.
    """

    ids: Sequence[int]
    logprobs: Sequence[float] = ()
    top_logprobs: Sequence[dict[int, float]] = ()
    policy_versions: Sequence[int] = ()
    started_s: float = 0.0
    ended_s: float = 0.0

    def parts(self) -> "Iterable[tuple[slice, int | None]]":
        """Runs of tokens of one policy version."""
        start = 0
        for stop in range(1, len(self.ids) + 1):
            versions = self.policy_versions[start : stop + 1]
            if stop == len(self.ids) or (len(versions) == stop + 1 - start and versions[-1] != versions[0]):
                yield slice(start, stop), versions[0] if versions else None
                start = stop


def start(prompt: Sequence[int]) -> LiveThread:
    """A root that sees a prompt."""
    root = LiveThread("0", TokenTable())
    if prompt:
        _add(root, Span(ids=list(prompt), origin="prompt"))
    root.floor = root.own_from = len(root.view)
    return root


def write(thread: LiveThread, inserts: Iterable[Insert], now: float = 0.0) -> None:
    """Write tokens of the runtime into a thread."""
    for insert in inserts:
        if insert.ids:
            origin: Origin = "copied" if insert.copied else "injected"
            _add(thread, Span(ids=list(insert.ids), origin=origin, shift=insert.shift, started_s=now, ended_s=now))
            thread.copied += len(insert.ids) if insert.copied else 0


def sample(thread: LiveThread, sampled: Sample) -> None:
    """Add sampled tokens; they extend the newest span unless something came in between, or the weights changed."""
    for part, version in sampled.parts():
        ids = list(sampled.ids[part])
        places = [place for fork in thread.forks for place in (fork.at, fork.joined_at)]
        places += [fork.at for fork in thread.malformed]
        newest = thread.spans[-1] if thread.spans and len(thread.spans) not in places else None
        if newest is None or newest.origin != "sampled" or newest.policy_version != version:
            newest = Span(ids=[], origin="sampled", started_s=sampled.started_s, policy_version=version)
            thread.spans.append(newest)
        newest.ids += ids
        newest.logprobs += sampled.logprobs[part]
        newest.top_logprobs += sampled.top_logprobs[part]
        newest.ended_s = sampled.ended_s
        thread.view = views.add(thread.table, thread.view, ids, sampled=True)
        thread.sampled += ids
        thread.drawn += len(ids)
        thread.critical_path += len(ids)


def prefilled(thread: LiveThread, prefilled: int, cached: int | None, computed: int) -> None:
    """Count what an engine did with a thread's context; nothing if the request never ran.

    Args:
        prefilled, cached: tokens, see `RequestOutput`.
        computed: leading tokens of the context, and then of what was sampled, whose KV is there now.
    """
    if not prefilled:
        return
    again = max(0, thread.computed - (cached or 0)) + thread.copied
    known = cached is not None and thread.cached_tokens is not None
    thread.prefilled_tokens = (thread.prefilled_tokens or 0) + prefilled
    thread.cached_tokens = (thread.cached_tokens or 0) + (cached or 0) if known else None
    thread.recomputed_tokens = (thread.recomputed_tokens or 0) + again if known else None
    thread.computed, thread.copied = computed, 0


def take_back(thread: LiveThread, count: int, now: float = 0.0) -> None:
    """Take back at most ``count`` of the newest tokens, none older than the thread's start or its newest join."""
    count = min(count, len(thread.view) - thread.floor)
    if count <= 0:
        return
    before = thread.view
    thread.view = views.take_back(thread.table, before, count)
    removed = sum(
        thread.table.sampled[token] for start, stop in before.beyond(thread.view) for token in range(start, stop)
    )
    del thread.sampled[len(thread.sampled) - removed :]
    thread.computed = min(thread.computed, len(thread.view))
    thread.spans.append(Span(ids=[], origin="injected", taken_back=count, started_s=now, ended_s=now))


def rewrite(thread: LiveThread, change: Rewrite, now: float = 0.0) -> None:
    """Take back and write, as a dialect says."""
    take_back(thread, change.take_back, now)
    write(thread, change.inserts, now)


def apply(thread: LiveThread, action: Continue | Finish | Reject | Rewrite, stop_reason: str, now: float = 0.0) -> bool:
    """Apply what a dialect says of a thread that stopped and does not fork; whether it samples on.

    Args:
        stop_reason: what the thread stopped at, in words.
    """
    match action:
        case Rewrite():
            rewrite(thread, action, now)
        case Reject(reason, ends):
            thread.malformed.append(MalformedFork(at=len(thread.spans), reason=reason))
            if ends:
                end(thread, "finished", reason)
        case Finish():
            end(thread, "finished", stop_reason)
    return thread.status is None


def fork(
    thread: LiveThread,
    rule: JoinRule,
    shares_prefix: bool,
    children: Iterable[ChildSpec] = (),
    now: float = 0.0,
    key: str | None = None,
) -> LiveFork:
    """Fork a thread into children, each with its header written; with a key, the thread samples on beside them.

    Raises:
        ValueError: an earlier fork has this key, or the join rule is not ``message``.
    """
    if key is not None and (rule != "message" or key in (fork.key for fork in thread.forks)):
        raise ValueError(f"a thread cannot go on beside a fork that joins by {rule} under the key {key!r}")
    started = LiveFork(len(thread.spans), rule, shares_prefix, key, waited=key is None)
    thread.forks.append(started)
    for child in children:
        add_child(thread, started, child, now)
    return started


def add_child(thread: LiveThread, started: LiveFork, child: ChildSpec, now: float = 0.0) -> LiveThread:
    """Add one child to a thread's newest fork."""
    number = sum(len(fork.children) for fork in thread.forks)
    born = LiveThread(
        label=f"{thread.label}.{number}",
        table=thread.table,
        view=views.fork(thread.view, started.shares_prefix),
        depth=thread.depth + 1,
        header=child.header,
        critical_path=thread.critical_path,
        computed=thread.computed if started.shares_prefix else 0,
    )
    started.children.append(born)
    write(born, child.header, now)
    born.floor = born.own_from = len(born.view)
    return born


def join(thread: LiveThread, joined: LiveFork) -> None:
    """See what the join rule lets a thread see of its children, all of which have ended."""
    if joined.key is not None:
        joined.waited, joined.joined_at = True, len(thread.spans)
    children = joined.children
    ends = [(child.view, child.ran) for child in children]
    if joined.join_rule == "relinearise" and children and children[0].ran:
        thread.computed = children[0].computed
    thread.view = views.join(thread.view, joined.join_rule, ends)
    if joined.join_rule == "graft" and any(ran for _, ran in ends):
        thread.computed = len(thread.view)
    thread.critical_path = max([thread.critical_path, *(child.critical_path for child in children)])
    thread.floor = len(thread.view)
    thread.sampled_before_join = len(thread.sampled)
    thread.joins += 1


def join_some(
    thread: LiveThread, waiting: Sequence[LiveFork], chosen: Sequence[LiveThread], rule: JoinRule, now: float = 0.0
) -> None:
    """Join some children of forks that a thread waits for, and none of the others.

    Those that a rule lets it see become one fork of their own: what a thread sees after a fork is all its children.
    It begins where the thread stands now, which has seen nothing new since it forked.

    Args:
        waiting: forks that it waits for, or beside which it went on; it saw nothing new since the former.
        chosen: in the order in which they are joined, with all of a fork joined by ``message``.
        rule: ``message`` for forks beside which it went on.
    """
    place = len(thread.spans)
    if rule == "message" or not chosen:
        for fork in waiting:
            _wait_for(thread, fork, None if len(waiting) == 1 and fork.at == place else place)
            join(thread, fork)
        return
    whole = len(waiting) == 1 and waiting[0].at == place and waiting[0].children == list(chosen)
    joined = waiting[0] if whole else LiveFork(place, rule, shares_prefix=True, joined_at=place, children=list(chosen))
    joined.join_rule = rule
    if not whole:
        for fork in waiting:
            fork.children = [child for child in fork.children if child not in chosen]
            _wait_for(thread, fork, place)
            join(thread, fork)
            if not fork.children:
                thread.forks.remove(fork)
        thread.forks.append(joined)
    join(thread, joined)


def pass_by(thread: LiveThread, fork: LiveFork, now: float = 0.0) -> None:
    """Note that a thread waited for all that the children of a fork did so far, and has not joined them yet."""
    _wait_for(thread, fork, len(thread.spans))
    thread.critical_path = max([thread.critical_path, *(child.critical_path for child in fork.children)])
    mark(thread, now)


def mark(thread: LiveThread, now: float = 0.0) -> None:
    """Separate what a thread did before from what it does next by an empty span."""
    thread.spans.append(Span(ids=[], origin="injected", started_s=now, ended_s=now))


def has_computed(thread: LiveThread, tokens: int) -> None:
    """Note that at least the first so many tokens that a thread sees have KV."""
    thread.computed = max(thread.computed, tokens)


def has_no_more(thread: LiveThread, tokens: int) -> None:
    """Note that of the KV of a thread only that of the first so many tokens is of what it sees."""
    thread.computed = min(thread.computed, tokens)


def _wait_for(thread: LiveThread, fork: LiveFork, place: int | None) -> None:
    fork.waited = True
    fork.joined_at = place if fork.joined_at is None else fork.joined_at


def end(thread: LiveThread, status: Status, reason: str) -> None:
    """Record how a thread ended; the first end counts."""
    if thread.status is None:
        thread.status, thread.stop_reason = status, reason


def fail(thread: LiveThread, reason: str) -> None:
    """Record that what ran a thread failed, however the thread itself ended."""
    thread.status, thread.stop_reason = "failed", reason


def note_failed_blocks(thread: LiveThread, dialect: Dialect, tokenizer: Any) -> None:
    """Record the blocks that a thread which has ended closed without a fork."""
    forks = len(thread.forks) + len(thread.malformed)
    for reason in failed_blocks(dialect.form, Tags(dialect.tags, tokenizer), thread.sampled, forks):
        thread.malformed.append(MalformedFork(at=len(thread.spans), reason=reason))


def _add(thread: LiveThread, span: Span) -> None:
    thread.spans.append(span)
    thread.view = views.add(thread.table, thread.view, span.ids, shift=span.shift)


def next_action(dialect: Dialect, thread: LiveThread, tokenizer: Any) -> Action:
    """What a dialect says of a thread that stopped or has not started; a tag that the thread quotes is plain text."""
    if thread.stopped_at == "stop":
        own, stops = thread.sampled[thread.sampled_before_join :], dialect.stops(thread.depth)
        by_text = not own or own[-1] not in stops.ids
        before = decode(tokenizer, own if by_text else own[:-1])
        if by_text:
            before = before.rpartition(stop_text(own, stops, tokenizer))[0]
        if is_quoted(before):
            return Continue()
    return dialect.step(thread.thread_view())


def stopped_at(token: int, stops: Stops, eos_ids: frozenset[int]) -> StoppedAt:
    """What a request stopped at whose last token this is; an end of text that only an engine knows counts too."""
    if token in stops.ids:
        return "stop"
    return "eos" if token in eos_ids or not stops.texts else "stop"


def completed_stop(sampled: Sequence[int], stops: Stops, tokenizer: Any) -> str | None:
    """The stop that the newest token is, or completes together with those before it; None if there is none."""
    if sampled and sampled[-1] in stops.ids:
        return decode(tokenizer, [sampled[-1]])
    if not sampled or not stops.texts:
        return None
    texts = StopTexts(tokenizer, stops.texts, sampled[-1 - reach(stops.texts) : -1])
    texts.completed_by(sampled[-1])
    return texts.found


def stop_text(sampled: list[int], stops: Stops, tokenizer: Any) -> str:
    """The tag or token that ended a thread, in full where the tokenizer splits it."""
    token: str = tokenizer.convert_ids_to_tokens(sampled[-1]) if sampled else ""
    return completed_stop(sampled, Stops(texts=stops.texts), tokenizer) or token
