import re

import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError

from parallel_reason import Fork, InputError, Span, Thread, Trace
from parallel_reason.trace import MalformedFork, tally
from rl.config import read_config
from rl.policy_config import PolicyConfig
from rl.rewards import Part, reward_parts
from tests.strategies import traces

PART = TypeAdapter(Part)


def trace(root=10, children=(), malformed=0, status="finished"):
    """A trace whose root samples some tokens, then forks children that sample as many as each number says."""
    fork = [Fork(at=1, join_rule="message", children=list(range(1, len(children) + 1)))] if children else []
    threads = [
        Thread(label="0", spans=[Span(ids=[1] * root, origin="sampled")], forks=fork, status=status,
               malformed=[MalformedFork(at=1, reason="?")] * malformed),
        *(Thread(label=f"0.{k}", parent=0, spans=[Span(ids=[1] * n, origin="sampled")], status="finished")
          for k, n in enumerate(children)),
    ]  # fmt: skip
    return Trace(dialect="d", model="m", prompt="p", threads=threads, ledger=tally(threads))


def value(part, of, correct=True, update=0):
    return reward_parts([PART.validate_python(part)], of, correct, update)[part["kind"]]


@pytest.mark.parametrize(
    ("part", "of", "correct", "expected"),
    [
        ({"kind": "correctness"}, trace(), True, 1.0),
        ({"kind": "correctness", "wrong": -1}, trace(), False, -1.0),
        ({"kind": "format"}, trace(), False, 0.0),
        ({"kind": "format"}, trace(malformed=1), True, -1.0),
        ({"kind": "format"}, trace(status="length"), True, -1.0),
        # 10 in the root, 30 and 10 below: T is 50, C is 40, and 1 - C / T is 0.2.
        ({"kind": "parallelism", "clip": 1}, trace(10, (30, 10)), True, 0.5 * 0.2),
        ({"kind": "parallelism"}, trace(0, (50, 50)), True, 0.5 * 0.2),
        ({"kind": "parallelism"}, trace(0, (50, 50)), False, 0.0),
        ({"kind": "total_tokens", "cost": 2}, trace(10, (30, 10)), True, -0.1),
        ({"kind": "total_tokens", "cost": 2}, trace(10, (30, 10)), False, 0.0),
        ({"kind": "total_tokens", "cost": 2, "of": "all"}, trace(10, (30, 10)), False, -0.1),
        ({"kind": "critical_path", "cost": 2}, trace(10, (30, 10)), True, -0.08),
    ],
)
def test_a_part_is_what_its_source_says(part, of, correct, expected):
    assert value(part, of, correct) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("of", "correct", "expected"),
    [
        (trace(1, (2,)), True, 1.2),
        (trace(), True, 1.0),
        (trace(), False, -1.0),
        (trace(1, (2,), malformed=1), True, -1.0),
    ],
)
def test_the_schedule_of_parallel_r1_rewards_forks_in_two_of_ten_updates(of, correct, expected):
    values = [value({"kind": "alternating"}, of, correct, update) for update in range(20)]
    assert values == ([1.0 if correct else -1.0] * 8 + [expected] * 2) * 2


@given(traces(detailed=True))
def test_no_trace_makes_a_part_raise(of):
    for kind in ("correctness", "format", "parallelism", "alternating"):
        assert abs(value({"kind": kind}, of)) <= 2


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(ValidationError, match="fame"):
        PART.validate_python({"kind": "fame"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "out: Field required"),
        ("out = 'x'\nepochs = 3", "epochs: Extra inputs are not permitted"),
        ("out = 'x'\n[sampling]\ntemperature = 0.0\nn = 8", "temperature above 0"),
        ("out = 'x'\n[sampling]\ntemperature = 1.0\nn = 8\nmin_p = 0.1", "sampling.min_p changes what"),
        ("out = 'x'\n[sampling]\ntemperature = 1.0\nn = 1", "at least 2 rollouts"),
        ("out = 'x'\ngroups = 3\n[optimization]\nmicro_batch = 7", "micro_batch=7 does not divide"),
        ("out = 'x'\n[objective]\nname = 'ppo'", "there is no objective 'ppo'; there is grpo, dr_grpo"),
        ("out = 'x'\n[objective]\nname = 'grpo'\nclip = 3", "objective 'grpo'"),
        ("out = 'x'\n[[rewards]]\nkind = 'format'\n[[rewards]]\nkind = 'format'", "each kind once"),
        ("out = ", "Invalid value"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_config(PolicyConfig, path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_function_of_the_users_is_a_part():
    part = {"kind": "function", "function": "tests.reward_functions:short", "weight": 0.5}
    assert value(part, trace(10, (30,))) == -20
    assert value(part, trace(10, (30,)), correct=False) == 0
    both = [PART.validate_python(p) for p in (part, {"kind": "correctness"})]
    assert reward_parts(both, trace(10), True, 0) == {"function": -5, "correctness": 1}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "tests.reward_functions:raises raised KeyError: 'no such key': sample 0 of 'p'"),
        ("hangs", "tests.reward_functions:hangs took longer than 3 s: sample 0 of 'p'"),
        ("dies", "tests.reward_functions:dies raised ProcessExpired"),
        ("no_number", "tests.reward_functions:no_number returned nan, which is no reward"),
    ],
)
def test_a_function_that_gives_no_reward_is_one_clear_error(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        value({"kind": "function", "function": f"tests.reward_functions:{name}", "seconds": 3}, trace())
    assert value({"kind": "function", "function": "tests.reward_functions:short"}, trace(4)) == -4


def test_a_function_that_is_not_there_is_refused_before_anything_runs():
    with pytest.raises(ValidationError, match="there is no function 'nowhere:x'"):
        PART.validate_python({"kind": "function", "function": "nowhere:x"})
