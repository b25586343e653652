"""From the end of the last child to the first token after the join: grafted, prefilled, and relinearised.

To graft takes two steps: KV of each child's last token and of the newline after it, which nobody has computed yet, and
the join's own request. Beside it the same number of tokens as plain text, prefilled after the parent's held KV; and
relinearised, after the first child's. The children are random ids whose KV a prefill computed: it is the KV that
decoding them would have left.
"""

import asyncio
import time
from typing import Any, NamedTuple

from benchmarks.models import FIRST_ID, VOCABULARY, RandomModel, random_ids
from benchmarks.report import Report, median_range_ms, ratio
from benchmarks.requests import ask, keep, numbers
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine, KVHandle, RequestOutput

PREFIX = 500  # its last block is not full
WINDOW = 20480
NEWLINE, CONCLUSION = 392, [393, 392]  # after a child, and after the join


class JoinTimes(NamedTuple):
    """Seconds from the children's end to the first token after their join, and context tokens computed.

    Attributes:
        graft: both steps; ``request``: the second alone.
        prefill: of the same number of tokens after the parent; ``relinearise``: after the first child.
        twice: context tokens that grafting computed though their KV was there.
        prefilled, relinearised: context tokens that these computed.
    """

    graft: float
    request: float
    prefill: float
    relinearise: float
    twice: int
    prefilled: int
    relinearised: int


async def compute(engine: Engine, ids: list[int], **options: Any) -> tuple[KVHandle, int]:
    """KV of all of these ids, and how many of them were not there before."""
    kv, output = await keep(engine, ids, **options)
    assert len(kv) == len(ids)
    return kv, computed(output)


def computed(output: RequestOutput) -> int:
    """Context tokens that a request computed."""
    assert output.cached_tokens is not None
    return output.prefilled_tokens - output.cached_tokens


async def time_joins(engine: Engine, children: int, tokens: int) -> JoinTimes:
    """Join children of fresh random ids, whose last two tokens have no KV yet, in each way."""
    seed = next(numbers)
    prefix = random_ids(PREFIX, seed)
    texts = [[FIRST_ID + k, *random_ids(tokens - 2, VOCABULARY * seed + k), NEWLINE] for k in range(children)]
    parent, _ = await compute(engine, prefix)
    decoded = await asyncio.gather(*(compute(engine, [*prefix, *text[:-2]], held=(parent,)) for text in texts))
    ran = [kv for kv, _ in decoded]
    below = [token for text in texts for token in text]
    ids = [*prefix, *below, *CONCLUSION]
    positions = [*range(PREFIX), *[*range(PREFIX, PREFIX + tokens)] * children]
    positions += range(PREFIX + tokens, PREFIX + tokens + len(CONCLUSION))
    unlike = [*prefix, FIRST_ID - 1, *below[1:], *CONCLUSION]  # the prefix cache does not have its first child

    times = [time.perf_counter()]
    closed = await asyncio.gather(
        *(compute(engine, [*prefix, *text], held=(kv,)) for text, kv in zip(texts, ran, strict=True))
    )
    parts = [kv[PREFIX:] for kv, _ in closed]
    times.append(time.perf_counter())
    graft = await ask(engine, ids, 1, positions=positions, held=(parent, *parts))
    times.append(time.perf_counter())
    prefill = await ask(engine, unlike, 1, held=(parent,))
    times.append(time.perf_counter())
    relinearise = await ask(engine, ids, 1, held=(ran[0],))
    times.append(time.perf_counter())

    for kv in (parent, *ran, *(kv for kv, _ in closed), *parts):
        kv.release()
    assert await engine.kv_is_free()
    return JoinTimes(
        graft=times[2] - times[0],
        request=times[2] - times[1],
        prefill=times[3] - times[2],
        relinearise=times[4] - times[3],
        twice=sum(new for _, new in closed) - 2 * children + computed(graft) - len(CONCLUSION),
        prefilled=computed(prefill),
        relinearised=computed(relinearise),
    )


async def compare_join_requests(
    models: list[RandomModel], report: Report, cases: list[tuple[int, int]], runs: int
) -> None:
    """Every size of model, number of children and length."""
    rows = []
    for model in models:
        engine = await start("vllm", model.folder, graft=True, context=WINDOW, **model.options)
        await time_joins(engine, 8, 64)  # warm
        for children, tokens in cases:
            taken = [await time_joins(engine, children, tokens) for _ in range(runs)]
            graft, prefill = [one.graft for one in taken], [one.prefill for one in taken]
            request, relinearise = [one.request for one in taken], [one.relinearise for one in taken]
            counts = [(one.twice, one.prefilled, one.relinearised) for one in taken]
            rows.append([
                f"{model.name}, {children} x {tokens}", *map(median_range_ms, (graft, request, prefill, relinearise)),
                ratio(graft, prefill), ratio(graft, relinearise), ratio(request, prefill),
                " / ".join(f"{max(count):,}" for count in zip(*counts, strict=True)),
            ])  # fmt: skip
        await engine.close()
    report.table(
        f"join: children x tokens after {PREFIX} tokens, ms to the first token, n={runs}",
        [
            "", "graft", "of this, the join's request", "prefill", "relinearise", "graft / prefill",
            "graft / relinearise", "join's request / prefill",
            "context tokens computed: graft, beyond the inserts / prefill / relinearise",
        ],
        rows,
    )  # fmt: skip
