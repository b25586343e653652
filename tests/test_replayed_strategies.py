"""Strategies on recorded branches: against plain readings of the same rules, and the published table."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from evals.replay import Replay, order_of
from parallel_reason.strategies import Budget, find
from parallel_reason.strategies.recorded import Accounting, RecordedBranches, RecordedProblem, replay
from parallel_reason.strategies.recording import any_text, of_aime, read_recording, readable

DATA = Path(os.environ.get("RECORDED_BRANCHES", Path(__file__).parents[2] / "shared" / "data" / "recorded_branches"))
EVERY = 10


def voted(answers):
    """The majority as `Counter` gives it: of equal counts, the answer that came first."""
    return Counter(answers).most_common(1)[0][0]


def sure(answers, threshold):
    (_, first), (_, second) = [*Counter(answers).most_common(2), (None, 0)][:2]
    return 1 - beta.cdf(0.5, first + 1, second + 1) > threshold


class Walk:
    """One branch, read step by step: at each step its next probe, then its end."""

    def __init__(self, branch):
        self.probes, self.length, self.final = branch
        self.cost, self.steps, self.ended = 0, 0, False

    def step(self):
        if self.steps < len(self.probes):
            self.answer = self.probes[self.steps]
            self.steps += 1
            self.cost += EVERY
        else:
            self.cost += max(0, self.length - self.cost)
            self.answer, self.ended = self.final, True


def plain_sc(branches, n):
    drawn = branches[:n]
    return voted([b[2] for b in drawn]), max(b[1] for b in drawn), sum(b[1] for b in drawn)


def plain_asc(branches, n, threshold):
    answers, spent = [], 0
    for _, length, final in branches[:n]:
        answers.append(final)
        spent += length
        if len(answers) > 1 and sure(answers, threshold):
            break
    return voted(answers), spent, spent


def plain_esc(branches, n, window):
    answers, sequential, total = [], 0, 0
    for first in range(0, n - window + 1, window):
        drawn = branches[first : first + window]
        answers += [b[2] for b in drawn]
        sequential += max(b[1] for b in drawn)
        total += sum(b[1] for b in drawn)
        if len({b[2] for b in drawn}) == 1:
            return drawn[0][2], sequential, total
    return voted(answers), sequential, total


def plain_short(branches, m, k):
    drawn = sorted(branches[:k], key=lambda b: b[1])
    reach = drawn[m - 1][1]
    return voted([b[2] for b in drawn[:m]]), reach, sum(min(b[1], reach) for b in drawn)


def plain_first_consensus(branches, n, threshold, longest):
    drawn = sorted(branches[:n], key=lambda b: b[1])
    in_time = [b for b in drawn if b[1] <= longest]
    reach = longest if len(in_time) < n else drawn[-1][1]
    votes = in_time
    for count in range(2, len(in_time) + 1):
        together = [b for b in drawn if b[1] <= in_time[count - 1][1]]  # those of equal length end together
        if sure([b[2] for b in together], threshold):
            votes, reach = together, together[-1][1]
            break
    total = sum(min(b[1], reach) for b in drawn)
    return (voted([b[2] for b in votes]) if votes else None), reach, total


def plain_sac(branches, n, patience):
    answers, costs = [], []
    for branch in branches[:n]:
        walk, said = Walk(branch), []
        while not walk.ended and not (len(said) >= patience and len(set(said[-patience:])) == 1):
            walk.step()
            said.append(walk.answer)
        answers.append(walk.answer)
        costs.append(walk.cost)
    return voted(answers), max(costs), sum(costs)


def plain_parallel_probe(branches, n, warm_up, patience, stable):
    walks = [Walk(b) for b in branches[:n]]
    off, pruned = [0] * n, [False] * n
    for walk in walks:
        walk.step()
    leading, same = None, 0
    for step in range(10_000):
        for i, walk in enumerate(walks):
            if not walk.ended and not pruned[i]:
                walk.step()
        active = [i for i in range(n) if not pruned[i]]
        winner = voted([walks[i].answer for i in active])
        if step >= warm_up and len(active) > 1:
            for i in active:
                if not walks[i].ended:
                    off[i] = off[i] + 1 if walks[i].answer != winner else 0
                    pruned[i] = off[i] >= patience
            active = [i for i in active if not pruned[i]]
            if not active:
                break
            winner = voted([walks[i].answer for i in active])
        same = same + 1 if winner == leading else 0
        leading = winner
        if same >= stable or all(walk.ended or pruned[i] for i, walk in enumerate(walks)):
            break
    costs = [walk.cost for walk in walks]
    return leading, max(costs), sum(costs)


answer = st.sampled_from("abcE")


@st.composite
def recorded(draw):
    """A few branches, some of them with a tail after the last probe."""
    branches = []
    for _ in range(draw(st.integers(8, 10))):
        probes = draw(st.lists(answer, min_size=1, max_size=9))
        length = EVERY * len(probes) + draw(st.integers(-EVERY + 1, 3 * EVERY))
        branches.append((probes, length, draw(answer)))
    return branches


def served(branches, name, accounting=None, budget=None, form=any_text):
    """The answer of a strategy in words, its critical path and its total."""
    problem = RecordedProblem.of("?", "a", EVERY, branches, form)
    paths = RecordedBranches(problem, np.arange(len(branches)), accounting or Accounting(0, True), budget)
    number = replay(find(name).run, paths)
    return (None if number < 0 else problem.names[number]), paths.critical_path, paths.total_tokens


@settings(max_examples=150, deadline=None)
@given(recorded(), st.integers(2, 4), st.integers(1, 3), st.integers(0, 2))
def test_each_rule_gives_what_its_plain_reading_gives(branches, patience, stable, warm_up):
    assert served(branches, "single") == (branches[0][2], branches[0][1], branches[0][1])
    assert served(branches, "sc:n=7") == plain_sc(branches, 7)
    assert served(branches, "asc:n=8,threshold=0.9") == plain_asc(branches, 8, 0.9)
    assert served(branches, "esc:n=8,window=2") == plain_esc(branches, 8, 2)
    assert served(branches, f"sac:n=6,every=10,patience={patience}") == plain_sac(branches, 6, patience)
    rule = f"parallel_probe:n=7,every=10,warm_up={warm_up},patience={patience},stable={stable}"
    assert served(branches, rule) == plain_parallel_probe(branches, 7, warm_up, patience, stable)


@settings(max_examples=150, deadline=None)
@given(recorded(), st.integers(1, 8), st.integers(15, 100), st.sampled_from([0.6, 0.8, 0.9]))
def test_rules_that_go_by_time_count_it_in_tokens(branches, m, longest, threshold):
    in_time = Accounting(0, False)
    lengths = [b[1] for b in branches]
    if len(set(lengths)) == len(lengths):  # those that end together with the m-th
        assert served(branches, f"short_mk:m={m},k=8", in_time) == plain_short(branches, m, 8)
    rule = f"first_consensus:n=8,threshold={threshold},longest={longest}"
    assert served(branches, rule, in_time) == plain_first_consensus(branches, 8, threshold, longest)


@settings(max_examples=150, deadline=None)
@given(recorded(), st.integers(1, 700), st.integers(1, 120), st.sampled_from(["sc:n=8", "asc", "esc", "sac:every=10",
       "parallel_probe:n=8,every=10,patience=2,warm_up=1", "first_consensus:n=8", "short_mk:m=3,k=8"]),
       st.integers(0, 5))  # fmt: skip
def test_no_strategy_spends_more_than_its_budget(branches, total, critical, name, probe_tokens):
    budget, accounting = Budget(total_tokens=total, critical_path=critical), Accounting(probe_tokens, False)
    free, unbounded, all_spent = served(branches, name, accounting)
    said, sequential, spent = served(branches, name, accounting, budget)
    assert sequential <= critical
    assert spent <= total
    if unbounded < critical and all_spent * 8 < total:
        assert said == free


def test_probes_are_charged_on_both_counts():
    branches = [(["a"] * 4, 40, "a"), (["b"] * 2, 20, "a")]
    _, sequential, total = served(branches, "sac:n=2,every=10,patience=9", Accounting(3, False))
    assert (sequential, total) == (40 + 3 * 3, 60 + 3 * (2 + 1 + 1))  # after 10, 20 and 30 tokens; none at an end


def test_what_cannot_be_read_does_not_vote_and_is_never_right():
    branches = [([], 10, "ERR"), ([], 10, "ERR"), ([], 10, "2.5"), ([], 10, "2.5"), ([], 10, "7")]
    assert served(branches, "sc")[0] == "ERR"
    assert served(branches, "sc", form=readable)[0] == "2.5"
    assert served(branches, "sc", form=of_aime)[0] == "7"
    problem = RecordedProblem.of("?", "x", EVERY, [([], 10, "ERR")], readable)
    assert Replay([problem], Accounting()).runs(find("sc"), 0, 2)[:, 0, 0].tolist() == [0.0, 0.0]


def test_orders_are_permutations_and_those_of_python():
    order = list(range(7))
    random.Random(3).shuffle(order)
    assert order_of(7, 3).tolist() == order


PUBLISHED = {
    24: {"sc": (80.37, 30091, 910813), "asc": (80.37, 226033, 226033), "esc": (80.37, 84694, 459359),
         "sac": (76.67, 25617, 773352), "parallel_probe": (81.47, 20324, 730781)},
    25: {"sc": (76.67, 30657, 1124432), "asc": (76.67, 406250, 406250), "esc": (76.67, 132444, 793089),
         "sac": (70.20, 28107, 998452), "parallel_probe": (76.87, 21943, 846739)},
}  # fmt: skip


@pytest.mark.parametrize("year", PUBLISHED)
@pytest.mark.parametrize("name", ["sc", "asc", "esc", "sac", "parallel_probe"])
def test_the_published_table_comes_out_to_the_token(year, name):
    """On the hundred orders of the authors' own run, whose figures are cut to whole tokens."""
    file = DATA / f"qwen3_8b_aime{year}.json"
    if not file.exists():
        pytest.skip(f"{file} is not there; RECORDED_BRANCHES names its folder")
    runs = Replay(read_recording(file, any_text), Accounting(0, True)).runs(find(name), 0, 100)
    accuracy, sequential, total = runs.mean((0, 1))
    assert round(100 * accuracy, 2) == PUBLISHED[year][name][0]
    assert (sequential, total) == pytest.approx(PUBLISHED[year][name][1:], abs=1)
