"""Figures against independent code: brute force over all choices, scipy, a simulation of coverage, transformers."""

import itertools
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parallel_reason import InputError, Ledger
from parallel_reason.engines import EMBEDDED
from parallel_reason.evaluation import compare, figures
from parallel_reason.evaluation.at_k import cons_at_k, pass_at_k
from parallel_reason.evaluation.compare import mcnemar, sign_flip
from parallel_reason.evaluation.figures import busy_s, by_problem, ks, share
from parallel_reason.evaluation.intervals import clustered, of_median, problem_error, sampling_error, wilson
from parallel_reason.evaluation.sample import Sample
from parallel_reason.evaluation.work import ModelShape, Work, shape_of, shape_of_config, work_of
from tests import scripted
from tests.strategies import traces

VOTES = st.lists(st.tuples(st.sampled_from(["7", "8", "9", None]), st.booleans()), min_size=1, max_size=7)


def sample(problem, number=0, correct=True, vote="7", **changes):
    ledger = {"sampled_tokens": 10, "critical_path_tokens": 5, "acceleration": 2.0, "wall_s": 1.0}
    ledger |= {name: changes.pop(name) for name in list(changes) if name in Ledger.model_fields}
    usual = {"well_formed": True, "status": "finished", "started_at": 0.0, "work": Work()}
    return Sample(
        problem=problem, sample=number, trace=f"{problem} {number}", correct=correct, vote=vote,
        ledger=Ledger(**ledger), **{**usual, **changes},
    )  # fmt: skip


def run_of(table):
    """A run from the verdicts of each problem: one problem a row, one sample a number."""
    return [sample(f"p{row}", n, bool(hit)) for row, hits in enumerate(table) for n, hit in enumerate(hits)]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_mean_over_all_choices_of_k(verdicts, data):
    k = data.draw(st.integers(1, len(verdicts)))
    choices = list(itertools.combinations(verdicts, k))
    assert pass_at_k(len(verdicts), sum(verdicts), k) == pytest.approx(sum(map(any, choices)) / len(choices))


@given(st.integers(1, 400), st.data())
def test_pass_at_k_of_many_samples_is_the_hypergeometric_tail(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    wanted = 1 - stats.hypergeom(n, correct, k).pmf(0)
    assert pass_at_k(n, correct, k) == pytest.approx(wanted, abs=1e-9)


def consensus(choice):
    """The chance that the most frequent answer of a choice is correct, read off its votes one by one."""
    counts = Counter(vote for vote, _ in choice if vote is not None)
    most = max(counts.values(), default=0)
    return [vote for vote in counts if counts[vote] == most]


@settings(deadline=None)
@given(VOTES, st.data())
def test_cons_at_k_is_the_mean_over_all_choices_of_k_with_ties_by_lot(votes, data):
    k = data.draw(st.integers(1, len(votes)))
    right = {
        vote: Fraction(
            sum(correct for other, correct in votes if other == vote), sum(other == vote for other, _ in votes)
        )
        for vote, _ in votes
    }
    choices = list(itertools.combinations(votes, k))
    total = Fraction(0)
    for choice in choices:
        leading = consensus(choice)
        total += sum((right[vote] for vote in leading), Fraction(0)) / max(1, len(leading))
    assert cons_at_k(votes, k) == pytest.approx(float(total / len(choices)))


def test_cons_at_k_of_many_samples_is_what_drawing_them_gives():
    rng = np.random.default_rng(0)
    votes = [(str(n), n == 3) for n in rng.choice(6, size=64, p=[0.1, 0.1, 0.2, 0.3, 0.25, 0.05])]
    drawn = []
    for _ in range(4000):
        leading = consensus([votes[n] for n in rng.choice(64, size=16, replace=False)])
        drawn.append(("3" in leading) / len(leading))
    assert cons_at_k(votes, 16) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(4000))


def test_an_interval_of_one_sample_a_problem_is_scipys_wilson():
    for hits, n in ((0, 5), (3, 7), (917, 1000), (30, 30)):
        wanted = stats.binomtest(hits, n).proportion_ci(method="wilson")
        for found in (wilson(hits, n), clustered([1] * hits + [0] * (n - hits), [1] * n)):
            assert found == pytest.approx((wanted.low, wanted.high), abs=2e-5)  # z of 1.96


# statsmodels 0.15, `OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": problem, "use_correction": False})`,
# times (problems / (problems - 1)) ** 0.5: standard errors of the mean of these verdicts, clustered by problem.
CLUSTERED = {
    ((1, 1, 1, 0), (0, 0, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1), (0, 0, 1, 0)): 0.17677669529663687,
    ((1, 1), (1, 1), (0, 0)): 0.3333333333333335,
}


@pytest.mark.parametrize("table", CLUSTERED)
def test_the_error_over_problems_is_statsmodels_clustered_one(table):
    means = np.array([np.mean(row) for row in table])
    assert problem_error(means) == pytest.approx(CLUSTERED[table], rel=1e-6)


def test_clustered_and_sampling_intervals_cover_what_they_promise():
    """Drawn again and again from a known truth: problems of different difficulty, eight samples of each."""
    rng = np.random.default_rng(1)
    of_problems = of_samples = naive = 0
    fixed = rng.beta(0.6, 0.6, size=40)
    for _ in range(600):
        rates = rng.beta(0.6, 0.6, size=40)
        hits = rng.binomial(8, rates)
        low, high = clustered(hits.tolist(), [8] * 40)
        of_problems += low <= 0.5 <= high
        low, high = wilson(int(hits.sum()), 320)
        naive += low <= 0.5 <= high
        hits = rng.binomial(8, fixed)
        error = sampling_error(hits.tolist(), [8] * 40)
        of_samples += abs(hits.mean() / 8 - fixed.mean()) <= 1.96 * error
    assert of_problems / 600 == pytest.approx(0.95, abs=0.03)
    assert of_samples / 600 == pytest.approx(0.95, abs=0.03)
    assert naive / 600 < 0.7  # counting samples of one problem as independent


def test_intervals_of_extreme_runs_stay_within_0_and_1():
    for table in ([[1, 1]], [[0, 0]], [[1, 0]], [[1, 0], [1, 0]], [[1], [1]], [[1, 1], [0, 0]]):
        found = share(by_problem(run_of(table)), lambda s: s.correct)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.1
    assert of_median([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_mcnemar_is_scipys_binomial_test_and_sign_flips_agree_with_it():
    rng = np.random.default_rng(0)
    for one, other in ((0, 0), (3, 5), (0, 8), (20, 4)):
        wanted = stats.binomtest(one, one + other).pvalue if one + other else 1.0
        assert mcnemar(one, other) == pytest.approx(wanted)
        flips = sign_flip(np.array([1.0] * one + [-1.0] * other + [0.0] * 9), rng)
        assert flips == pytest.approx(wanted, abs=0.02)


def test_sign_flips_of_unequal_differences_are_scipys_permutation_test():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1, size=12)
    wanted = stats.permutation_test(
        (differences, np.zeros(12)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip(differences, rng) == pytest.approx(wanted, abs=0.02)


def test_a_comparison_pairs_problems_and_bootstraps_over_them_as_scipy_does():
    rng = np.random.default_rng(3)
    first, second = rng.binomial(1, 0.4, size=(60, 4)), rng.binomial(1, 0.6, size=(60, 4))
    found = compare(run_of(first)[::-1], run_of(second))
    differences = second.mean(axis=1) - first.mean(axis=1)
    assert found.difference == pytest.approx(differences.mean())
    wanted = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=9999).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.01)
    assert (found.first_only, found.second_only) == ((differences < 0).sum(), (differences > 0).sum())
    assert not found.noise
    assert found.test == "sign-flip permutation test"


def test_a_difference_that_would_settle_at_so_many_problems_or_samples_does():
    """The counts that a comparison names have the power that it promises, by drawing such runs again."""
    rng = np.random.default_rng(5)

    def draw(problems, samples):
        rates = rng.beta(2, 2, size=problems)
        lift = np.clip(rates + 0.1, 0, 1)
        return [run_of(rng.binomial(1, r[:, None], size=(problems, samples))) for r in (rates, lift)]

    pilots = [compare(*draw(100, 4)) for _ in range(15)]
    problems = int(np.median([pilot.problems_to_settle for pilot in pilots]))
    settled = np.mean([not compare(*draw(problems, 4)).noise for _ in range(40)])
    assert settled == pytest.approx(0.8, abs=0.17)
    equal = run_of([[1, 0], [0, 1]])
    assert compare(equal, equal).problems_to_settle is None
    assert compare(equal, equal).noise


def test_costs_are_ratios_of_sums_and_say_on_how_many_problems_a_run_is_slower():
    first = [sample("a", critical_path_tokens=100), sample("b", critical_path_tokens=10), sample("only", number=0)]
    second = [sample("a", critical_path_tokens=50), sample("b", critical_path_tokens=20), sample("other", number=0)]
    found = compare(first, second)
    assert found.critical_path.value == pytest.approx(70 / 110)
    assert found.critical_path.worse == 0.5
    assert (found.problems, found.left_out) == (2, 2)
    with pytest.raises(InputError, match="no problem in common"):
        compare(first[:1], second[1:])


def test_figures_of_a_run_by_hand():
    run = [
        sample("a", 0, True, "7", sampled_tokens=400, critical_path_tokens=100, acceleration=4.0, forks=1),
        sample("a", 1, False, "8", sampled_tokens=300, critical_path_tokens=150, acceleration=2.0, started_at=0.5),
        sample("b", 0, False, None, sampled_tokens=100, critical_path_tokens=100, acceleration=1.0, started_at=5.0,
               malformed_forks=1, well_formed=False, cached_tokens=None),
        sample("b", 1, True, "7", sampled_tokens=0, critical_path_tokens=0, acceleration=1.0, started_at=5.2),
    ]  # fmt: skip
    found = figures(run, ModelShape(weights=10, attention=1))
    assert (found.problems, found.samples, found.k) == (2, 4, 2)
    assert found.accuracy.value == 0.5
    assert found.pass_at == {1: 0.5, 2: 1.0}
    assert found.cons_at == {1: 0.5, 2: 0.75}  # a tie of 7 and 8; 7 alone
    assert found.acceleration_of_sums == pytest.approx(800 / 350)
    assert found.mean_acceleration == 2.0
    assert (found.forked.hits, found.malformed.hits, found.well_formed.hits) == (1, 1, 3)
    assert found.cached_share is None
    assert found.cached_tokens is None
    assert found.busy_s == pytest.approx(1.5 + 1.2)
    assert found.tokens_per_s == pytest.approx(800 / 2.7)
    assert (found.critical_path_tokens.mean, found.critical_path_tokens.largest) == (87.5, 150)
    assert json.loads(found.model_dump_json())["accuracy"]["hits"] == 2
    with pytest.raises(InputError, match="no finished sample"):
        figures([])


def test_ks_are_powers_of_two_and_the_fewest_samples():
    assert [ks(n) for n in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=8))
def test_busy_time_is_how_long_at_least_one_trace_ran(spans):
    run = [sample("a", number, started_at=float(start), wall_s=float(s)) for number, (start, s) in enumerate(spans)]
    wanted = sum(any(start <= tick < start + s for start, s in spans) for tick in range(60))
    assert busy_s(run) == pytest.approx(wanted)


@settings(deadline=None, max_examples=60)
@given(traces(depth=2))
def test_work_counts_every_token_once_with_what_it_sees(trace):
    from parallel_reason import layout

    row, found = layout(trace), work_of(trace)
    contexts = row.mask().sum(axis=1)
    assert (found.decoded, found.decoded_context) == (row.sampled.sum(), contexts[row.sampled].sum())
    assert (found.prefilled, found.prefilled_context) == ((~row.sampled).sum(), contexts[~row.sampled].sum())


@pytest.mark.parametrize("dialect", ["spawn_join", "none"])
def test_unshared_prefill_is_the_context_of_every_request_that_the_engine_got(dialect):
    session = scripted.session(dialect=dialect)
    (trace,) = scripted.run(session)
    sizes = [len(request.ids) for request in session.engine.requests]
    found = work_of(trace)
    assert found.unshared == sum(sizes) == trace.ledger.prefilled_tokens
    assert found.unshared_context == sum(n * (n + 1) // 2 for n in sizes)


def test_the_weights_that_a_token_meets_are_those_of_transformers():
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

    same = {
        "vocab_size": 500, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    dense = [LlamaConfig(**same), Qwen2Config(**same), Qwen3Config(**same, head_dim=24)]
    for config in dense:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        matrices = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        found = shape_of_config(config.to_dict())
        assert found.weights == sum(matrix.weight.numel() for matrix in matrices)
        head = getattr(config, "head_dim", None) or 64 // 4
        assert found.attention == 4 * 3 * 4 * head
    moe = Qwen3MoeConfig(
        **same, head_dim=16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, tie_word_embeddings=False
    )
    attention, expert, router = 64 * 16 * (4 + 4 + 2 + 2), 3 * 64 * 32, 64 * 8
    assert shape_of_config(moe.to_dict()).weights == 3 * (attention + 2 * expert + router) + 64 * 500


def test_a_shape_that_cannot_be_known_is_none(tmp_path):
    assert shape_of(str(EMBEDDED)).weights > 100_000
    assert shape_of("served-model") is None
    for text in ("{", "[]", '{"hidden_size": 4}', '{"hidden_size": "x"}'):
        (tmp_path / "config.json").write_text(text)
        assert shape_of(str(tmp_path)) is None


def test_spans_that_follow_one_another_are_of_one_request():
    from parallel_reason import Span, Thread, Trace

    def request(*spans):
        return work_of(
            Trace(prompt="", dialect="none", model="m", threads=[Thread(label="0", status="finished", spans=spans)])
        )

    prompt, more = Span(ids=[1, 2, 3], origin="prompt"), Span(ids=[4, 5], origin="sampled")
    written = Span(ids=[6], origin="injected")
    assert request(prompt, more, more).unshared == 3
    assert request(prompt, more, written, more).unshared == 3 + 6
    assert request(prompt, more, more.model_copy(update={"taken_back": 1})).unshared == 3 + 4
