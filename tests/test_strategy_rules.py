"""Votes, confidences and p-values against scipy and plain loops; parameters of strategies by name."""

import difflib
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from scipy.stats import entropy as scipy_entropy

from parallel_reason import InputError
from parallel_reason.strategies import STRATEGIES, find
from parallel_reason.strategies.confidence import MEASURES, token_confidences, window_means
from parallel_reason.strategies.conformal import p_values, perplexity
from parallel_reason.strategies.deepconf import kept_vote, share_of_first
from parallel_reason.strategies.leap import routed
from parallel_reason.strategies.rounds import by_votes
from parallel_reason.strategies.votes import (
    borda,
    entropy,
    lead_is_real,
    leading_two,
    majority,
    weighted_majority,
)

answers = st.lists(st.integers(-1, 4), max_size=20)
positive = st.floats(0.125, 8, width=16)


@given(answers)
def test_majorities_are_those_of_a_counter(said):
    cast = [one for one in said if one >= 0]
    counted = Counter(cast).most_common(2)
    given_answers = np.array(said, dtype=np.int64)
    assert majority(given_answers) == (counted[0][0] if cast else -1)
    assert leading_two(given_answers) == tuple([count for _, count in counted] + [0] * (2 - len(counted)))
    ranked = [one for one, _ in Counter(cast).most_common() for _ in range(cast.count(one))]
    assert Counter(said[place] for place in by_votes(given_answers)) == Counter(ranked)
    counts = [Counter(cast)[said[place]] for place in by_votes(given_answers)]
    assert counts == sorted(counts, reverse=True)


@given(st.lists(st.tuples(st.integers(-1, 3), positive), max_size=20))
def test_weighted_majority_sums_weights(votes):
    sums = defaultdict(float)
    for one, weight in votes:
        if one >= 0:
            sums[one] += weight
    said, weights = np.array([v[0] for v in votes], dtype=np.int64), np.array([v[1] for v in votes])
    best = weighted_majority(said, weights)
    assert (best == -1) if not sums else sums[best] == pytest.approx(max(sums.values()))


@given(st.integers(0, 64), st.integers(0, 64))
def test_the_stopping_rule_is_the_beta_distribution(first, second):
    assert lead_is_real(first, second) == pytest.approx(1 - beta.cdf(0.5, first + 1, second + 1), abs=1e-12)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=20))
def test_entropy_is_that_of_scipy_and_silence_is_an_answer_of_its_own(said):
    groups = list(Counter(one for one in said if one >= 0).values()) + [1] * said.count(-1)
    assert entropy(np.array(said)) == pytest.approx(scipy_entropy(groups), abs=1e-12)


@given(st.lists(positive, min_size=1, max_size=12, unique=True), st.sampled_from([0.5, 1.0, 2.0]))
def test_borda_weighs_by_rank(scores, power):
    ranked = sorted(scores, reverse=True)
    expected = [(len(scores) - (ranked.index(score) + 1) + 1) ** power for score in scores]
    assert borda(np.array(scores), power).tolist() == pytest.approx(expected)


@given(st.lists(positive, min_size=1, max_size=60), st.integers(1, 20))
def test_measures_of_confidence_are_plain_means_of_windows(sure, window):
    width = min(window, len(sure))
    means = [sum(sure[at : at + width]) / width for at in range(len(sure) - width + 1)]
    given_sure = np.array(sure)
    assert window_means(given_sure, window).tolist() == pytest.approx(means)
    assert MEASURES["mean"](given_sure, window) == pytest.approx(sum(sure) / len(sure))
    assert MEASURES["tail"](given_sure, window) == pytest.approx(means[-1])
    assert MEASURES["least"](given_sure, window) == pytest.approx(min(means))
    tenth = sorted(means)[: max(1, len(means) // 10)]
    assert MEASURES["bottom"](given_sure, window) == pytest.approx(sum(tenth) / len(tenth))


def test_a_token_is_as_sure_as_its_alternatives_are_unlikely():
    sure = token_confidences([{1: math.log(0.9), 2: math.log(0.1)}, {1: math.log(0.5), 2: math.log(0.5)}])
    assert sure.tolist() == pytest.approx([-(math.log(0.9) + math.log(0.1)) / 2, -math.log(0.5)])


def test_deepconf_keeps_the_surest_and_weighs_them():
    said, sure = np.array([0, 0, 1, -1, 1]), np.array([1.0, 1.0, 3.0, 9.0, 0.5])
    assert kept_vote(said, sure, keep=1.0) == 1  # 2.0 against 3.5; the path without an answer is out
    assert kept_vote(said, sure, keep=0.25) == 1
    assert kept_vote(np.array([0, 1]), np.array([2.0, 1.0]), keep=0.1) == 0  # at least one
    assert share_of_first(said, sure, bar=0.9) == pytest.approx(3 / 5)
    assert share_of_first(said, sure, bar=99) == 0.0


@given(st.lists(positive, min_size=1, max_size=9), st.lists(positive, max_size=9))
def test_p_values_count_what_is_at_least_as_large(scores, calibration):
    expected = [(sum(one >= score for one in calibration) + 1) / (len(calibration) + 1) for score in scores]
    assert p_values(np.array(scores), np.array(calibration)).tolist() == pytest.approx(expected)


def test_perplexity_is_that_of_equal_choices():
    assert perplexity(np.log([0.25] * 7)) == pytest.approx(4)
    assert perplexity(np.zeros(0)) == math.inf


def test_peers_are_the_least_similar():
    said = {0: "aaaa", 1: "aaab", 2: "zzzz", 5: "aazz"}
    for path, others in routed(said, 2).items():
        ratios = {o: difflib.SequenceMatcher(None, *sorted_pair(said, path, o)).ratio() for o in said if o != path}
        assert [said[o] for o in sorted(ratios, key=lambda o: (ratios[o], o))][:2] == others


def sorted_pair(said, one, other):
    return said[min(one, other)], said[max(one, other)]


def test_strategies_are_found_by_name_with_parameters():
    assert find("short_mk:m=1,k=16").k == 16
    assert find("pacore:breadths=32+4+1").breadths == (32, 4, 1)
    assert find("shortest").m == 1
    for name in STRATEGIES:
        assert find(name).name == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("voting", "there is no strategy 'voting'; there is single, sc"),
        ("sc:k=3", "strategy 'sc' has no parameter 'k'; it has n"),
        ("sc:n=0", "'sc:n=0': n='0': Input should be greater than or equal to 1"),
        ("sc:n=many", "'sc:n=many': n='many': Input should be a valid integer"),
        ("asc:threshold=1.5", "threshold='1.5': Input should be less than or equal to 1"),
        ("sac:every=0", "every='0': Input should be greater than or equal to 1"),
        ("pacore:breadths=4+x", "breadths='x'"),
        ("deepconf_offline:measure=head", "Input should be 'mean', 'tail', 'bottom' or 'least'"),
    ],
)
def test_a_wrong_name_or_parameter_is_one_line(text, said):
    with pytest.raises(InputError) as error:
        find(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_page_has_every_strategy():
    page = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text()
    assert [name for name in STRATEGIES if f"`{name}`" not in page] == []
