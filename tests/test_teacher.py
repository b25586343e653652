import random
from fractions import Fraction
from functools import cache
from itertools import combinations

from parallel_reason import SpawnJoin, layout
from parallel_reason.tasks.countdown import LARGEST, Problem, draw, solvable, solves, tokenizer
from parallel_reason.text import decode
from parallel_reason.trace import from_json
from rl.recall import token_kinds
from rl.teacher import Teacher

TOKENIZER = tokenizer()
DIALECT = SpawnJoin.bind(TOKENIZER)
VOCABULARY = TOKENIZER.get_vocab()
ALL = 99  # children


def teach(problem, seed=0, children=ALL, error_rate=0.0):
    return Teacher(DIALECT, VOCABULARY, children, error_rate).trace(problem, random.Random(seed))


def small(rng):
    """A problem of small numbers, most of whose first steps lead somewhere or nowhere in many ways."""
    while True:
        problem = Problem(tuple(rng.sample(range(1, 16), 4)), rng.randint(10, 100))
        if solvable(problem.numbers, problem.target):
            return problem


@cache
def lessons():
    problems = [make(random.Random(seed)) for seed in range(30) for make in (draw, small)]
    return [(problem, teach(problem, seed)) for seed, problem in enumerate(problems)]


def made(a, b):
    """The whole numbers, zero and above, that one step makes of two."""
    found = {a + b, abs(a - b), a * b}
    found |= {x // y for x, y in ((a, b), (b, a)) if y and x % y == 0}
    return found


def within(a, b):
    return {value for value in made(a, b) if value <= LARGEST}


def reaches(numbers, target):
    """Whether three numbers reach the target: two of them make a value, and this and the third the target."""
    splits = ((numbers[k], numbers[:k] + numbers[k + 1 :]) for k in range(3))
    return any(target in made(value, c) for c, pair in splits for value in within(*pair))


def openings(problem):
    for i, j in combinations(range(4), 2):
        rest = tuple(problem.numbers[k] for k in range(4) if k not in (i, j))
        for value in within(problem.numbers[i], problem.numbers[j]):
            yield (value, *rest)


def children_of(trace):
    return trace.children(trace.root.forks[0])


def results(trace):
    """What every child returned, as text, or None."""
    found = [DIALECT.read_result(child.spans[-1].ids) for child in children_of(trace)]
    return [None if ids is None else decode(TOKENIZER, ids) for ids in found]


def searches(trace):
    """What every child wrote, as text."""
    return [decode(TOKENIZER, [i for span in child.spans[1:] for i in span.ids]) for child in children_of(trace)]


def answer(trace):
    return decode(TOKENIZER, trace.root.spans[-1].ids).removesuffix("<eos>")


def test_every_result_and_every_answer_solves_the_problem():
    answers = 0
    for problem, trace in lessons():
        for result in results(trace):
            assert result is None or solves(result, problem)
        shown = decode(TOKENIZER, trace.root.spans[2].ids).removeprefix("<join>").removesuffix("</join>").split("<sep>")
        assert any(result != "<none>" for result in shown) == (answer(trace) != "no")
        for result in shown:
            assert result == "<none>" or solves(result, problem)
        if answer(trace) != "no":
            answers += 1
            assert answer(trace) == next(result for result in shown if result != "<none>")
    assert answers > 50


def test_a_way_that_stays_within_the_largest_number_is_found():
    for problem, trace in lessons():
        children = list(openings(problem))
        assert (answer(trace) != "no") == any(reaches(numbers, problem.target) for numbers in children)
        for child, result in zip(children_of(trace), results(trace), strict=True):
            step = decode(TOKENIZER, child.spans[0].ids).partition("=")[2]
            numbers = tuple(int(number) for number in step.split())
            assert numbers in children
            assert (result is not None) == reaches(numbers, problem.target)


def test_every_first_step_has_a_child():
    for problem, trace in lessons():
        headers = [decode(TOKENIZER, child.spans[0].ids) for child in children_of(trace)]
        opened = {tuple(int(number) for number in header.partition("=")[2].split()) for header in headers}
        assert opened == set(openings(problem))


def test_the_children_are_those_that_the_parent_spawned():
    for problem, trace in lessons():
        messages = DIALECT.read_messages(trace.root.spans[1].ids)
        headers = [[DIALECT.thread, *message] for message in messages]
        children = children_of(trace)
        assert headers == [child.spans[0].ids for child in children]
        few = children_of(teach(problem, children=3))
        assert len(few) == 3
        places = [headers.index(child.spans[0].ids) for child in few]
        assert places == sorted(set(places))


def test_waves_spawn_what_is_left_until_one_has_a_result():
    counts = set()
    for seed, (problem, _) in enumerate(lessons()):
        waves = Teacher(DIALECT, VOCABULARY, ALL, least_spawned=0.1).trace(problem, random.Random(seed))
        spawned, found = [], []
        for fork in waves.root.forks:
            headers = [decode(TOKENIZER, child.spans[0].ids) for child in waves.children(fork)]
            assert headers
            assert not set(headers) & set(spawned)
            spawned += headers
            found.append(any(DIALECT.read_result(child.spans[-1].ids) for child in waves.children(fork)))
        assert found[:-1] == [False] * (len(found) - 1)
        assert found[-1] == (answer(waves) != "no") == (answer(teach(problem, seed)) != "no")
        every = {decode(TOKENIZER, child.spans[0].ids) for child in children_of(teach(problem, seed))}
        assert set(spawned) <= every
        assert found[-1] or set(spawned) == every
        assert answer(waves) == "no" or solves(answer(waves), problem)
        counts.add(len(found))
    assert {1, 2, 3} <= counts


def test_a_trace_reads_back_from_its_file():
    for problem, trace in lessons():
        assert from_json(trace.to_json()) == trace
        assert trace.prompt_ids == TOKENIZER.encode(str(problem))
        assert {thread.status for thread in trace.threads} == {"finished"}


def test_text_reads_back_as_the_same_tokens():
    for _, trace in lessons():
        for thread in trace.threads:
            for span in thread.spans:
                text = decode(TOKENIZER, span.ids)
                assert TOKENIZER.encode(text, add_special_tokens=False) == span.ids
                assert VOCABULARY["<unk>"] not in span.ids


def test_no_thread_sees_more_than_the_models_window():
    assert 200 < max(layout(trace).longest_context for _, trace in lessons()) <= 1024


def test_every_sampled_token_is_of_one_kind():
    for _, trace in lessons():
        assert len(token_kinds(trace, DIALECT, VOCABULARY["no"])) == layout(trace).sampled.sum()


def test_the_kinds_of_a_childs_tokens_are_those_of_its_text():
    for problem in (lessons()[0][0], lessons()[1][0]):
        trace = teach(problem, children=5)
        texts = [search.partition("<return>")[0].removesuffix("</thread>") for search in searches(trace)]
        named = token_kinds(trace, DIALECT, VOCABULARY["no"])
        assert named.count("verdict no") == sum(text.count("no") for text in texts)
        assert named.count("verdict yes") == named.count("check holds") == sum("no" not in text[-2:] for text in texts)
        assert named.count("check") == 11 * named.count("verdict yes")
        for kind in ("sum", "difference", "product", "quotient"):
            assert named.count(kind) == sum(text.count(":") for text in texts)


def truth(a, sign, b):
    """What a step makes, as the teacher writes it."""
    a, b = int(a), int(b)
    value = Fraction(a, b or 1) if sign == "/" else {"+": a + b, "-": a - b, "*": a * b}[sign]
    return str(value) if (b or sign != "/") and value == int(value) and 0 <= value <= LARGEST else "_"


def test_an_injected_error_is_not_trained_on_and_is_rejected_after_a_true_check():
    verdicts, values = 0, 0
    for problem, _ in lessons():
        for child in children_of(teach(problem, error_rate=1.0)):
            for error, after in zip(child.spans[2::2], child.spans[3::2], strict=True):
                assert error.origin == "injected"
                assert len(error.ids) == 1
                words = TOKENIZER.convert_ids_to_tokens(after.ids)
                start = words.index("=") - 3
                verdicts += start == 0
                values += start > 0
                steps = [words[start : start + 5]]
                if words[start + 5] == ",":
                    steps.append(words[start + 6 : start + 11])
                assert all(truth(*step[:3]) == step[4] for step in steps)
                assert words[start + 6 * len(steps) - 1] == "no"
                assert len(steps) == 1 or steps[-1][4] != str(problem.target)
    assert min(verdicts, values) > 50


def test_injected_errors_change_neither_the_results_nor_the_answer():
    for problem, trace in lessons():
        wrong = teach(problem, error_rate=1.0)
        for result in results(wrong):
            assert result is None or solves(result, problem)
        assert [r is None for r in results(wrong)] == [r is None for r in results(trace)]
        assert len(token_kinds(wrong, DIALECT, VOCABULARY["no"])) == layout(wrong).sampled.sum()
