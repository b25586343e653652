import random
from fractions import Fraction
from itertools import islice, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_reason import SpawnJoin
from parallel_reason.engines import EMBEDDED
from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown import (
    HELD_OUT,
    Problem,
    draw,
    held_out,
    held_out_keys,
    problem_with,
    solvable,
    solves,
    tokenizer,
)
from parallel_reason.tasks.countdown.vocabulary import TAGS
from rl.sft_data import rows_of_teacher

DIGITS = set("0123456789")
EXAMPLE = Problem((22, 26, 31, 53), 27)
RIGHT = "31+22=53,53/53=1,1+26=27"  # one 53 is given, the other made


def make(sign, a, b):
    """What a step makes; None for a fraction, a number below zero, and a division by zero."""
    if sign == "/" and b == 0:
        return None
    value = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b or 1)}[sign]
    return int(value) if value >= 0 and value == int(value) else None


def reachable(numbers):
    found = set()
    for a, b, c in permutations(numbers):
        for value in {make(sign, a, b) for sign in "+-*/"} - {None}:
            found |= {make(sign, value, c) for sign in "+-*/"} | {make(sign, c, value) for sign in "+-*/"}
    return found - {None}


def replay(answer, problem):
    """Whether an answer solves a problem, by playing it with the numbers on the table."""
    table = list(problem.numbers)
    for step in answer.split(","):
        left, _, made = step.partition("=")
        signs = [character for character in left if character in "+-*/"]
        if len(signs) != 1:
            return False
        a, b = left.split(signs[0])
        if not all(number and set(number) <= DIGITS for number in (a, b, made)):
            return False
        for number in (int(a), int(b)):
            if number not in table:
                return False
            table.remove(number)
        if make(signs[0], int(a), int(b)) != int(made):
            return False
        table.append(int(made))
    return table == [problem.target]


def play(rng, numbers):
    """A legal answer, and what it makes."""
    table, steps = list(numbers), []
    while len(table) > 1:
        rng.shuffle(table)
        sign, a, b = rng.choice("+-*/"), table[-1], table[-2]
        value = make(sign, a, b)
        if value is not None:
            table[-2:] = [value]
            steps.append(f"{a}{sign}{b}={value}")
    return ",".join(steps), table[0]


def spoil(rng, answer):
    """The answer with one thing in it changed."""
    steps, place = answer.split(","), rng.randrange(len(answer))
    step = rng.choice(steps)
    letter = rng.choice("0123456789+-*/=,")
    return rng.choice(
        [
            answer[:place] + letter + answer[place + 1 :],
            answer[:place] + answer[place + 1 :],
            answer[:place] + letter + answer[place:],
            ",".join(one for one in steps if one is not step),
            ",".join([*steps, step]),
            ",".join(rng.sample(steps, len(steps))),
        ]
    )


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(0, 99)] * 3))
def test_solvable_finds_exactly_what_can_be_reached_with_three_numbers(numbers):
    wanted = reachable(numbers)
    some = range(0, 150)
    assert {target for target in some if solvable(numbers, target)} == wanted & set(some)
    assert all(solvable(numbers, target) for target in wanted)


def test_right_answers_are_accepted_and_spoilt_ones_judged_as_by_replay():
    rng, verdicts = random.Random(0), []
    for _ in range(4000):
        numbers = tuple(rng.randint(1, 30) for _ in range(rng.randint(2, 4)))
        answer, made = play(rng, numbers)
        problem = Problem(tuple(rng.sample(numbers, len(numbers))), made)
        assert solves(answer, problem)
        spoilt = spoil(rng, answer)
        verdicts.append(solves(spoilt, problem))
        assert verdicts[-1] == replay(spoilt, problem), (spoilt, problem)
    assert 10 < sum(verdicts) < 2000


def test_a_number_that_was_given_and_made_may_be_used_twice():
    assert solves(RIGHT, EXAMPLE)
    assert problem_with(RIGHT, EXAMPLE) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "no answer"),
        ("", "no answer"),
        ("no", "'no' is not a step"),
        ("31+22=53,53/53=2,2+25=27", "53/53=2 is false"),
        ("53-31=22,53-26=27,22+22=44", "no 53 left"),
        ("26+26=52", "no 26 left"),
        ("53-26=27", "2 numbers not used"),
        ("53-31=22,22+26=48,48+22=70", "it makes 70, not 27"),
        ("22-53=-31", "is not a step"),
        ("22-53=31", "is false"),
        ("53/22=2", "is false"),
        ("53/22=53/22", "is not a step"),
        ("22/26=0.846", "is not a step"),
        (RIGHT + ",", "'' is not a step"),
        (RIGHT + ",26-26=0", "no 26 left"),
        (RIGHT + "\n", "is not a step"),
        (RIGHT.replace("/", ":"), "is not a step"),
        (RIGHT.replace("/", "//"), "is not a step"),
        (RIGHT.replace("53", "0x35"), "is not a step"),
        ("__import__('os').getpid()", "is not a step"),
        ("9" * 5000 + "+1=2", "is not a step"),
        ("53*31=" + "9" * 5000, "is not a step"),
    ],
)
def test_a_wrong_answer_is_refused_with_what_is_wrong(answer, why):
    assert why in problem_with(answer, EXAMPLE)


@pytest.mark.parametrize(("answer", "numbers"), [("5/0=0,0+1=1", (5, 0, 1)), ("0/0=1,1*1=1", (0, 0, 1))])
def test_division_by_zero_is_false(answer, numbers):
    assert "is false" in problem_with(answer, Problem(numbers, 1))


@pytest.mark.parametrize("zero", [0x0660, 0x0966, 0xFF10])
def test_digits_of_other_scripts_are_no_numbers(zero):
    foreign = RIGHT.translate({ord("0") + k: zero + k for k in range(10)})
    assert foreign != RIGHT
    assert not solves(foreign, EXAMPLE)


def test_two_numbers_with_a_space_between_are_not_one():
    assert not solves(RIGHT.replace("53", "5 3"), EXAMPLE)


@settings(deadline=None)
@given(
    st.text() | st.text("0123456789+-*/=,"), st.lists(st.integers(0, 99), min_size=1, max_size=4), st.integers(0, 99)
)
def test_any_text_is_judged_and_none_raises(answer, numbers, target):
    problem = Problem(tuple(numbers), target)
    assert solves(answer, problem) == replay(answer, problem)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2), st.integers(0, 10**6))
def test_a_problem_reads_back_as_it_is_written(numbers, target):
    problem = Problem(tuple(numbers), target)
    assert Problem.parse(str(problem)) == problem
    assert Problem.parse(f" {problem} ".replace(",", " , ").replace("=", " = ")) == problem


@pytest.mark.parametrize(
    "text",
    ["", "1=2", "1,2", "1,2=", "=3", "a,b=c", "1,,2=3", "1,2=3=4", "-1,2=3", "1.5,2=3", "1,2=3;", "1 2=3", "1_0,2=3"],
)
def test_what_is_no_problem_is_refused_by_its_text(text):
    with pytest.raises(InputError) as error:
        Problem.parse(text)
    assert repr(text) in str(error.value)


def test_a_number_too_long_to_be_one_is_refused():
    with pytest.raises(InputError):
        Problem.parse("1," + "9" * 5000 + "=3")


def test_drawn_problems_are_solvable_and_of_the_papers_distribution():
    problems = [draw(random.Random(seed), size) for seed in range(25) for size in (3, 4)]
    assert {len(problem.numbers) for problem in problems} == {3, 4}
    for problem in problems:
        assert set(problem.numbers) <= set(range(1, 100))
        assert 10 <= problem.target <= 100
        assert solvable(problem.numbers, problem.target)
        if len(problem.numbers) == 3:
            assert problem.target in reachable(problem.numbers)


def test_held_out_problems_are_always_the_same_and_no_two_alike():
    problems = held_out(50)
    assert held_out(50) == problems
    assert held_out(10) == problems[:10]
    pairs = held_out(400, size=2)  # so many of so few that draws repeat
    assert len({(frozenset(problem.numbers), problem.target) for problem in pairs}) == 400
    assert all(len(problem.numbers) == 3 for problem in held_out(5, size=3))


def test_no_order_of_the_numbers_makes_another_problem():
    assert len({Problem(order, 27).key for order in permutations(EXAMPLE.numbers)}) == 1
    assert len({EXAMPLE.key, Problem(EXAMPLE.numbers, 28).key, Problem((22, 26, 31, 52), 27).key}) == 3


def test_the_test_set_has_an_end_and_more_than_that_is_refused_by_number():
    problems = held_out()
    assert len({problem.key for problem in problems}) == len(problems) == HELD_OUT == 2000
    assert [str(problem) for problem in problems[:2]] == ["76,75,57,39=95", "67,48,40,41=90"]
    for count in (HELD_OUT + 1, 3000, -1):
        with pytest.raises(InputError, match=f"^{count} .* {HELD_OUT}$"):
            held_out(count)


def test_the_keys_of_the_test_set_are_those_of_all_its_problems():
    assert held_out_keys() == {problem.key for problem in held_out(HELD_OUT)}
    assert held_out_keys(3) == {problem.key for problem in held_out(HELD_OUT, size=3)}


def prompts(count, excluded):
    words = tokenizer()
    keys = frozenset(problem.key for problem in excluded)
    rows = rows_of_teacher(seed=0, children=2, error_rate=0.5, hard_negatives_after=5, excluded=keys)
    for row in islice(rows, count):
        text = words.decode(row["input_ids"])
        yield Problem.parse(text.partition("<spawn>")[0])


def test_training_leaves_out_the_held_out_problems_in_any_order_of_their_numbers():
    everything = list(prompts(12, []))
    excluded = [Problem(problem.numbers[::-1], problem.target) for problem in everything[1:10:2]]
    assert list(prompts(7, excluded)) == everything[0:10:2] + everything[10:12]


def test_the_vocabulary_is_the_embedded_models_and_has_the_tags_of_its_dialect():
    from transformers import AutoTokenizer

    assert tokenizer().get_vocab() == AutoTokenizer.from_pretrained(EMBEDDED).get_vocab()
    assert set(TAGS) == set(SpawnJoin.tags.values())
