"""SSFT: forking tokens, one vote a thread, and the tokens of the thread that won."""

import pytest

from benchmarks.grammars import tokenizer
from parallel_reason import Limits
from parallel_reason.dialects import find
from parallel_reason.dialects.ssft import last_box
from tests.written import scripted, written

TOKENS = tokenizer([*find("ssft").tags.values(), *"|\\{}", "}.", "so\\"])


def vote(*answers, limits=None, **options):
    texts = {f"0.{number}": [text + "<eos>"] for number, text in enumerate(answers)}
    return scripted("ssft", texts, limits or Limits(), TOKENS, paths=len(answers), **options)


def test_threads_begin_with_their_token_and_the_answer_of_most_is_the_answer():
    trace = vote("x\\boxed{5} no: \\boxed{4}", "\\boxed{ 5 }", "so\\boxed{5}.", "nothing")
    texts = written(trace, TOKENS)
    assert texts["0"] == "{\\boxed{ 5 }}"
    assert texts["0.1"] == "{<|im_start|><think2>\n}\\boxed{ 5 }<eos>"
    assert (trace.status, trace.stop_reason, trace.answer) == ("finished", "2 of 4 threads agree", "5")


@pytest.mark.parametrize(
    ("answers", "wanted", "why"),
    [
        (["\\boxed{a}", "\\boxed{b}"], "a", "1 of 2 threads agree"),  # the first of as many
        (["\\boxed{\\frac{1}{2}}", "\\boxed{\\frac{1} {2}}", "\\boxed{0}"], "\\frac{1}{2}", "2 of 3 threads agree"),
        (["\\boxed{1}\\boxed{2", "\\boxed{1}"], "1", "2 of 2 threads agree"),  # one that is not closed is none
        (["\\boxed{}", "x", ""], None, "no thread has an answer"),
    ],
)
def test_an_answer_is_what_stands_in_the_last_box(answers, wanted, why):
    trace = vote(*answers)
    assert (trace.answer, trace.stop_reason) == (wanted, why)


def test_a_token_that_holds_more_than_the_box_stays_whole():
    assert written(vote("so\\boxed{5}."), TOKENS)["0"] == "{so\\boxed{5}.}"


def test_more_threads_than_tokens_use_them_in_turn():
    trace = vote(*["\\boxed{1}"] * 32)
    headers = [TOKENS.decode(thread.spans[0].ids) for thread in trace.threads[1:]]
    assert [headers.count(f"<|im_start|><think{i}>\n") for i in range(1, 7)] == [6, 6, 5, 5, 5, 5]


def test_a_thread_that_a_bound_cut_after_its_box_votes_too():
    trace = vote("\\boxed{5}" + "x" * 200, limits=Limits(tokens_per_thread=120))
    assert (trace.answer, trace.threads[1].status) == ("5", "length")


def test_boxes_within_boxes_are_read_in_one_pass():
    nested = "\\boxed{" * 40_000  # a reading that begins anew at each of them takes minutes
    assert last_box(nested) is None
    assert last_box(nested + "}") == (len(nested) - 7, len(nested) + 1)
    assert last_box("}{\\boxed{a}") == (2, 11)
