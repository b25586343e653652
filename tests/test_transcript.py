"""`Trace.transcript`: a trace as people read it."""

from hypothesis import given

from parallel_reason import Limits
from tests.scripted import WORDS, run, session
from tests.strategies import traces


def test_a_message_join_shows_what_was_sampled_and_what_was_written_into_it():
    [trace] = run(session())
    assert trace.transcript(WORDS).splitlines() == [
        "[0] Qab<spawn>x<sep>y<sep>z</spawn>",
        "  [0.0] <thread>xaa<return>r</thread>",
        "  [0.1] <thread>yb<return>s</thread>",
        "  [0.2] <thread>zccc<return>t</thread>",
        "[0] <join>r<sep>s<sep>t</join>c<eos>",
    ]


def test_lines_of_a_child_stand_below_its_parent_and_what_was_taken_back_is_gone():
    outlines = "<Outline>1:a</Outline><Outline>2:b</Outline>"
    texts = {"0": [f"p<Goal>{outlines}</Goal>", "b<eos>"], "0.0": ["x\ny</Path>"], "0.1": ["z<eos>"]}
    [trace] = run(session(texts, dialect="multiverse"))
    assert trace.transcript(WORDS).splitlines() == [
        f"[0] Qp<Goal>{outlines}</Goal>",
        "  [0.0] <Path>", "  1:x", "  y</Path>",
        "  [0.1] <Path>", "  2:z",
        "[0] <Conclusion>", "b<eos>",
    ]  # fmt: skip


def test_a_nested_child_is_indented_twice_and_one_that_did_not_finish_says_why():
    texts = {"0": ["<spawn>x</spawn>", "c<eos>"], "0.0": ["<spawn>y<sep>z</spawn>", "</thread>"], "0.0.0": ["a" * 9]}
    [trace] = run(session(texts), limits=Limits(depth=2, children=1, tokens_per_thread=6))
    assert trace.transcript(WORDS).splitlines() == [
        "[0] Q<spawn>x</spawn>",
        "  [0.0] <thread>x<spawn>y<sep>z</spawn>",
        "    [0.0.0] <thread>yaaaaaa (length: limits.tokens_per_thread=6)",
        "    [0.0.1] <thread>z (cancelled: limits.children=1)",
        "  [0.0] <join><none><sep><none></join></thread>",
        "[0] <join><none></join>c<eos>",
    ]


def test_without_a_fork_it_is_the_prompt_and_the_text():
    [trace] = run(session({"0": ["abc<eos>"]}))
    assert trace.transcript(WORDS) == "[0] Qabc<eos>"


@given(traces(wild=True))
def test_every_trace_has_one(trace):
    lines = trace.transcript(Numbers()).splitlines()
    shown = [token for line in lines for token in line.replace("(", " ").split() if token.isdecimal()]
    own = [span for thread in trace.threads for span in thread.spans]
    most = sum(len(span.ids) for span in own if span.origin != "copied")
    assert most - sum(span.taken_back for span in own) <= len(shown) <= most


class Numbers:
    """A tokenizer whose tokens are their ids."""

    def decode(self, ids, skip_special_tokens):
        return "".join(f"{token} " for token in ids)
