r"""Flat text back to traces, and what is wrong with a text: the text shell over `transitions`.

`parse` replays a text (`parallel_reason.trace.flat` writes it) through the dialect, with the same actions as a run.
What the runtime writes, the headers of children and the text of joins, is matched by its text, blanks apart, and is not
sampled; everything else is. A thread at whose fork nothing follows, or whose text ends before it does, has status
``length``. The round trip gives back every trace whose children all closed themselves, and in which no thread wrote a
tag of the runtime's.

Grafted and relinearised texts keep their own tokens, blanks too, since that is what their sources train on: blanks
before the first child belong to the parent, those after a child to that child. Positions are the source's
(`Form.blanks_count`): in Multiverse, NPR and Parallel-R1 (unseen) children begin one after the token that forked, and
the join one after the last token of the longest child, whatever blanks stand there. ThreadWeaver leaves out blanks
between threads (`Form.drops_blanks`), and so does the trace. In texts that join by message the runtime's own tokens
stand, and APR's rows, one a call, are read as one thread each in which the joins are not sampled.

`problems` says what is wrong with a text: first where it breaks the form (`dialects.checks`), then where no run could
have written it. Against the public checkers it is stricter on numbers and order (children come as their outlines do;
NPR's format score and Multiverse's data checker compare counts), on what stands between children and before the join,
which must be blank, on ``</Summary>``, which Parallel-R1's leaves out, and on blocks within its paths. It is laxer on
content (NPR's least lengths and ``\boxed``), on text around Multiverse's outlines, on tags that are not the dialect's,
and on whitespace.
"""

from typing import Any

from parallel_reason.dialects import options_of
from parallel_reason.dialects.base import Dialect
from parallel_reason.dialects.checks import Problem, violations
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import InputError
from parallel_reason.runtime.live_thread import records
from parallel_reason.runtime.reader import Reader
from parallel_reason.text import decode
from parallel_reason.trace import Trace, tally
from parallel_reason.trace.place import placed


def parse(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int], model: str = "") -> Trace:
    """The trace that has this text.

    Raises:
        InputError: the text has no such tree; naming the first token where it cannot be read.
    """
    replay = Reader(dialect, tokenizer, prompt, ids)
    if replay.breaks:
        first = min(replay.breaks, key=lambda problem: problem.at)
        raise InputError(f"not a text of dialect {dialect.name!r}: token {first.at}: {first.what}")
    threads = records(replay.root)
    trace = Trace(
        dialect=dialect.name,
        dialect_options=options_of(dialect),
        model=model,
        prompt=decode(tokenizer, prompt),
        prompt_ids=prompt,
        threads=threads,
        ledger=tally(threads),
    )
    positions = dialect.form.positions(dialect, [*prompt, *ids])
    return trace if positions is None else placed(trace, positions)


def problems(dialect: Dialect, tokenizer: Any, prompt: list[int], ids: list[int]) -> list[Problem]:
    """What is wrong with a text, the most telling first; nothing if it is well-formed."""
    replay = Reader(dialect, tokenizer, prompt, ids)
    unread = sorted({*replay.breaks, *replay.notes}, key=lambda problem: (problem.at, problem.what))
    return [*violations(dialect.form, Tags(dialect.tags, tokenizer), ids), *unread]
