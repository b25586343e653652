"""How a thread of a program joins some of its children and leaves the others."""

from collections.abc import Sequence

from parallel_reason.dialects.base import Insert, ids_of
from parallel_reason.errors import InputError
from parallel_reason.runtime import transitions
from parallel_reason.runtime.events import ForkJoined
from parallel_reason.runtime.program_run import NEVER_RAN, ProgramRun
from parallel_reason.runtime.program_state import KVOfJoin, ProgramState
from parallel_reason.text import decode
from parallel_reason.trace import JoinRule

RULES = ("message", "relinearise", "graft")


def join(
    run: ProgramRun, state: ProgramState, children: Sequence[ProgramState], rule: JoinRule, text: list[int]
) -> None:
    """Join children, in this order, and write a text; all others that the thread waits for are left.

    The KV that this takes is put together before the next request of the thread.

    Raises:
        InputError: the rule cannot be used, or a child cannot be joined.
    """
    live, now = state.live, run.now()
    _check(run, state, children, rule)
    others = [child for child in state.kids if child not in children]
    for child in others:
        _leave(run, child)
    chosen = [child for child in children if child.live.ran and not child.lost and rule != "message"]
    for child in children:
        run.end(child, *(("finished", "joined") if child.live.ran else NEVER_RAN))
    beside = {child.live for child in children if child.beside_parent}
    forks = [*state.waiting, *(fork for fork in live.forks if beside.intersection(fork.children))]
    before = len(live.view)
    transitions.join_some(live, forks, [child.live for child in chosen], rule)
    live.waiting_s += now - state.since if state.waiting else 0
    if chosen:
        state.joins.append(KVOfJoin(rule, chosen, before))
        state.grafted = len(live.view) if rule == "graft" else chosen[0].grafted
    inserts = [Insert(tuple(text))] if text else []
    if rule == "relinearise":
        inserts = [*(Insert(_own(child), copied=True) for child in chosen[1:]), *inserts]
    transitions.write(live, inserts, now)
    if not inserts:
        transitions.mark(live, now)
    _forget(run, state, [*children, *others], chosen)
    if run.emit:
        written = decode(run.engine.tokenizer, ids_of(inserts))
        run.emit(ForkJoined(run.id, live.label, tuple(child.live.label for child in children), written))


def _own(child: ProgramState) -> tuple[int, ...]:
    """The tokens of a child, header and all."""
    ids, _ = child.live.context
    return (*ids_of(child.live.header), *ids[child.live.own_from :])


def _check(run: ProgramRun, state: ProgramState, children: Sequence[ProgramState], rule: str) -> None:
    run.check(state, waiting=True)
    if rule not in RULES:
        raise InputError(f"there is no join rule {rule!r}; use one of {', '.join(map(repr, RULES))}")
    if rule == "graft" and not run.engine.capabilities.graft:
        raise InputError(
            f"engine {run.engine.name!r} as it was started cannot join by graft; start engine 'vllm' with graft=True, "
            "or use engine='torch'"
        )
    for child in children:
        label = child.live.label
        if child.parent is not state:
            raise InputError(f"thread {label} is no child of thread {state.live.label}, which cannot join it")
        run.check(child, waiting=True)
        if rule != "message" and (child.beside_parent or not child.shares):
            raise InputError(f"thread {label} does not continue what its parent sees; join it by 'message'")


def _leave(run: ProgramRun, child: ProgramState) -> None:
    """End a child that is not joined, with all below it."""
    if child.busy:
        run.stop([child], "not joined")
    else:
        run.stop(child.family()[1:], "not joined")
        run.end(child, *(("finished", "not joined") if child.live.ran else NEVER_RAN))


def _forget(
    run: ProgramRun, state: ProgramState, children: Sequence[ProgramState], chosen: Sequence[ProgramState]
) -> None:
    """Let go of children that were joined or left; the KV of those that were chosen is still needed."""
    for child in children:
        child.joined = True
        run.stop(child.family()[1:], "its parent was joined")
        if child not in chosen and not child.busy:
            run.free(child)
    state.kids = [child for child in state.kids if child not in children]
    state.probes = [child for child in state.probes if child not in children]
    state.waiting, state.at_end = [], False
