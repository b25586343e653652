"""Every figure of a run, each defined once, as a pure function of its samples."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from parallel_reason.errors import InputError
from parallel_reason.evaluation.at_k import cons_at_k, pass_at_k
from parallel_reason.evaluation.intervals import clustered, sampling_error
from parallel_reason.evaluation.sample import Sample
from parallel_reason.evaluation.work import ModelShape
from parallel_reason.record import FrozenRecord
from parallel_reason.trace import aggregate

Groups = Mapping[str, Sequence[Sample]]  # the samples of each problem


class Share(FrozenRecord):
    """A proportion of samples: the mean over problems of the share of each problem's samples.

    Attributes:
        low, high: its 95% interval for problems drawn anew, `clustered`.
        sampling_error: its standard error for these very problems sampled anew; None with one sample a problem.
        hits, samples: counted over all problems.
    """

    value: float
    low: float
    high: float
    sampling_error: float | None
    hits: int
    samples: int


class Tokens(FrozenRecord):
    """A count of tokens of one trace: its mean and its largest value over all samples."""

    mean: float
    largest: int


class Flops(FrozenRecord):
    """Floating-point operations of one trace, means over samples; see `parallel_reason.evaluation.work`.

    Attributes:
        prefill: with every token of a shared prefix computed once.
        unshared_prefill: if every request computed all that it sees.
        decode: of sampled tokens.
        saved: the share of all operations that sharing saves.
    """

    prefill: float
    unshared_prefill: float
    decode: float
    saved: float


class Figures(FrozenRecord):
    """The figures of a run. Means are over samples and shares over problems, unless they say otherwise.

    Attributes:
        problems, samples: how many; ``k`` is the fewest samples of a problem.
        accuracy: avg@k, the share of correct samples.
        pass_at, cons_at: pass@k and cons@k by k, means over problems, for k of 1, 2, 4, ... and the fewest samples.
        well_formed, forked, malformed, failed: shares of samples, see `Sample`; ``forked`` has a fork, ``malformed``
            one that could not be read, ``failed`` was ended by a fault.
        prefilled_tokens, cached_tokens, recomputed_tokens: what the engine did, means; None if it could not tell.
        acceleration_of_sums, mean_acceleration: see `Aggregate`.
        cached_share: of prefilled tokens.
        wall_s: of one trace, mean. ``busy_s`` is the time in which at least one trace ran, and ``tokens_per_s`` all
            sampled tokens over it.
        flops: None if the model's shape is not known.
    """

    problems: int
    samples: int
    k: int
    accuracy: Share
    pass_at: dict[int, float]
    cons_at: dict[int, float]
    well_formed: Share
    forked: Share
    malformed: Share
    failed: Share
    sampled_tokens: Tokens
    critical_path_tokens: Tokens
    threads: Tokens
    longest_context: Tokens
    prefilled_tokens: float | None
    cached_tokens: float | None
    recomputed_tokens: float | None
    acceleration_of_sums: float
    mean_acceleration: float
    cached_share: float | None
    wall_s: float
    busy_s: float | None = None
    tokens_per_s: float | None = None
    flops: Flops | None = None


def figures(samples: Sequence[Sample], shape: ModelShape | None = None) -> Figures:
    """All figures of the samples of one run.

    Raises:
        InputError: there are none.
    """
    if not samples:
        raise InputError("there is no finished sample: run the evaluation first")
    groups = by_problem(samples)
    fewest = min(map(len, groups.values()))
    total = aggregate(sample.ledger for sample in samples)
    n = len(samples)
    busy = busy_s(samples)
    votes = {key: [(sample.vote, sample.correct) for sample in group] for key, group in groups.items()}
    return Figures(
        problems=len(groups),
        samples=n,
        k=fewest,
        accuracy=share(groups, lambda sample: sample.correct),
        pass_at={
            k: _mean(pass_at_k(len(group), sum(s.correct for s in group), k) for group in groups.values())
            for k in ks(fewest)
        },
        cons_at={k: _mean(cons_at_k(group, k) for group in votes.values()) for k in ks(fewest)},
        well_formed=share(groups, lambda sample: sample.well_formed),
        forked=share(groups, lambda sample: sample.ledger.forks > 0),
        malformed=share(groups, lambda sample: sample.ledger.malformed_forks > 0),
        failed=share(groups, lambda sample: sample.failed),
        sampled_tokens=_tokens(sample.ledger.sampled_tokens for sample in samples),
        critical_path_tokens=_tokens(sample.ledger.critical_path_tokens for sample in samples),
        threads=_tokens(sample.ledger.threads for sample in samples),
        longest_context=_tokens(sample.longest_context for sample in samples),
        prefilled_tokens=_over(total.prefilled_tokens, n),
        cached_tokens=_over(total.cached_tokens, n),
        recomputed_tokens=_over(total.recomputed_tokens, n),
        acceleration_of_sums=total.acceleration_of_sums,
        mean_acceleration=total.mean_acceleration,
        cached_share=total.cached_share,
        wall_s=_mean(sample.ledger.wall_s for sample in samples),
        busy_s=busy,
        tokens_per_s=total.sampled_tokens / busy if busy else None,
        flops=flops(samples, shape) if shape else None,
    )


def by_problem(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each problem, in order of their number."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.sample):
        groups[sample.problem].append(sample)
    return dict(groups)


def ks(fewest: int) -> list[int]:
    """1, 2, 4, ... and the fewest samples of a problem."""
    return sorted({2**power for power in range(fewest.bit_length())} | {fewest})


def share(groups: Groups, hit: Callable[[Sample], bool]) -> Share:
    """The proportion of samples that are hits."""
    hits = [sum(map(hit, group)) for group in groups.values()]
    sizes = [len(group) for group in groups.values()]
    low, high = clustered(hits, sizes)
    return Share(
        value=_mean(h / n for h, n in zip(hits, sizes, strict=True)),
        low=low,
        high=high,
        sampling_error=sampling_error(hits, sizes),
        hits=sum(hits),
        samples=sum(sizes),
    )


def busy_s(samples: Iterable[Sample]) -> float | None:
    """Seconds in which at least one trace ran; pauses between attempts of a run do not count. None if not known."""
    spans = []
    for sample in samples:
        if sample.started_at is None:
            return None
        spans.append((sample.started_at, sample.started_at + sample.ledger.wall_s))
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def flops(samples: Sequence[Sample], shape: ModelShape) -> Flops:
    """Means of the operations of one trace."""
    prefill = _mean(shape.flops(s.work.prefilled, s.work.prefilled_context) for s in samples)
    unshared = _mean(shape.flops(s.work.unshared, s.work.unshared_context) for s in samples)
    decode = _mean(shape.flops(s.work.decoded, s.work.decoded_context) for s in samples)
    whole = unshared + decode
    return Flops(
        prefill=prefill,
        unshared_prefill=unshared,
        decode=decode,
        saved=(unshared - prefill) / whole if whole else 0.0,
    )


def _tokens(counts: Iterable[int]) -> Tokens:
    every = list(counts)
    return Tokens(mean=sum(every) / len(every), largest=max(every))


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)


def _over(total: int | None, count: int) -> float | None:
    return None if total is None else total / count
