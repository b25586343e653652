"""Log-likelihoods of continuations, and whether greedy decoding gives them."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from parallel_reason.runtime.session import Session
from parallel_reason.sampling import SamplingParams

AT_ONCE = 64
SURE = math.log(0.5)  # a token above it is the most likely one


@dataclass(frozen=True)
class Continuation:
    """Token ids of a context and a continuation of ``length`` tokens, [context + length]."""

    ids: list[int]
    length: int


async def log_likelihoods(session: Session, texts: Sequence[Continuation]) -> list[tuple[float, bool]]:
    """For each, the sum of the log-probs of the continuation, and whether each of its tokens is the most likely one.

    Where the log-probs leave the second open, the model decodes greedily and the ids are compared.
    """
    slots = asyncio.Semaphore(AT_ONCE)
    plain = session.with_dialect("none")

    async def one(text: Continuation) -> tuple[float, bool]:
        async with slots:
            scores = (await session.score(text.ids))[-text.length :]
            greedy = all(score > SURE for score in scores) or await _is_greedy(plain, text)
        return sum(scores), greedy

    return list(await asyncio.gather(*map(one, texts)))


async def _is_greedy(session: Session, text: Continuation) -> bool:
    sampling = SamplingParams(max_tokens=text.length, ignore_eos=True)
    [trace] = await session.run([text.ids[: -text.length]], sampling)
    return [token for span in trace.root.spans if span.origin == "sampled" for token in span.ids] == text.ids[
        -text.length :
    ]
