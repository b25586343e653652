"""Sampling parameters over whole threads on torch: a thread may take many requests, and nothing starts over."""

import asyncio
import re

import pytest
import torch

from benchmarks.grammars import tokenizer
from parallel_reason import InputError, Limits, SamplingParams, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.checks import check_sampling
from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.exactness import BOUND, compare
from tests.house import House, ask
from tests.letters import WORDS, build, build_endless, words
from tests.rules import RULES, continued

LETTERS = tokenizer([])  # every tag is a text of many tokens
ROOT = "<Goal><Outline>1:</Outline><Outline>2:</Outline><Outline>3:</Outline></Goal>s{2,5}</Conclusion>"
CHILD = "x{1,12}</Path>"
BEYOND = "z{9}"  # what a child writes if nobody sees that it closed itself


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    folder = build_endless("Llama", tmp_path_factory.mktemp("endless"))
    house = House(folder, TorchEngine.start(folder, device="cpu"))
    yield house
    assert house.run(house.engine.kv_is_free())
    house.close()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_where_a_thread_is_cut_into_requests_does_not_matter(endless, rule):
    ids, options = words(17, 5), {"seed": 5, "temperature": 1.0, **rule}
    (whole,) = endless.all(ask("whole", ids, 40, **options))
    (free,) = endless.all(ask("free", ids, 40, seed=5, temperature=1.0))
    assert whole.ids != free.ids
    endless.check(ids, whole, drawn=True)  # log-probs are of the model, whatever the rules
    for cuts in ((1, 12, 27), (14, 26)):
        assert continued(endless, ids, cuts, options).ids == whole.ids


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
        ({"bad_words": ["a", "bc"]}, {"bad_words_ids": [[WORDS.index("a")], [WORDS.index("b"), WORDS.index("c")]]}),
        ({"logit_bias": {4: 3.0, 9: -2.5}}, {"sequence_bias": {(4,): 3.0, (9,): -2.5}}),
    ],
)
def test_greedy_tokens_under_a_rule_are_those_of_transformers(endless, rule, theirs):
    ids = words(3, 12)
    (output,) = endless.all(ask("ours", ids, 40, **rule))
    expected = endless.plain.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=40, do_sample=False, pad_token_id=0,
        eos_token_id=None, **theirs,
    )  # fmt: skip
    assert expected[0, len(ids) :].tolist() == output.ids


def test_an_end_of_text_is_ignored_or_waits(tmp_path):
    house = House(build("Llama", tmp_path), TorchEngine.start(str(tmp_path), device="cpu"))
    ids, options = words(1, 5), {"logit_bias": {0: 9.0}, "temperature": 1.0, "seed": 1}
    ends, waits, ignores = house.all(
        ask("ends", ids, 60, **options),
        ask("waits", ids, 60, min_tokens=20, **options),
        ask("ignores", ids, 60, ignore_eos=True, **options),
    )
    later = house.run(house.engine.generate(ask("later", ids, 60, min_tokens=20, first_draw=15, **options)))
    house.close()
    assert (ends.ids.index(0), ends.finish_reason) == (len(ends.ids) - 1, "stop")
    assert len(ends.ids) < 20 < len(waits.ids)
    assert waits.ids.index(0) == len(waits.ids) - 1
    assert later.ids.index(0) == len(later.ids) - 1 >= 5
    assert (len(ignores.ids), ignores.finish_reason) == (60, "length")
    assert 0 in ignores.ids[:-1]


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    """A random model of characters; grammars make it write a dialect."""
    folder = build("Llama", tmp_path_factory.mktemp("spelling"), vocab_size=len(LETTERS))
    LETTERS.save_pretrained(folder)
    house = House(folder, TorchEngine.start(folder, device="cpu"))
    yield house
    assert house.run(house.engine.kv_is_free())
    house.close()


def traces(house, *limits, n=1, **fields):
    """A trace, or several, for each of the limits."""
    session = Session(house.engine, bind("multiverse", LETTERS))
    below = SamplingParams(
        temperature=1.5, **({"structured_outputs": {"regex": CHILD + BEYOND}} | fields.pop("below", {}))
    )
    sampling = SamplingParams(temperature=1.0, seed=4, n=n, structured_outputs={"regex": ROOT}, below=below, **fields)

    async def every():
        return await asyncio.gather(*(session.run("b", sampling, each) for each in limits))

    return [trace for run in house.run(every()) for trace in run]


def test_a_tag_that_a_budget_cuts_is_found_in_the_next_request(spelling):
    """Children that have used up their share go on with what their siblings leave, wherever that cut them."""
    regex = "x{%d}</Path>" + BEYOND
    own = {f"0.{k}": SamplingParams(structured_outputs={"regex": regex % size}) for k, size in enumerate((1, 6, 12))}
    (free,) = traces(spelling, Limits(), threads=own)
    need = free.ledger.sampled_tokens
    cut = set()
    for trace in traces(spelling, *(Limits(tokens=tokens) for tokens in range(need - 30, need + 2, 2)), threads=own):
        for thread, whole in zip(trace.threads[1:], free.threads[1:], strict=True):
            assert whole.text.startswith(thread.text)
            assert (thread.status == "finished") == (thread.text == whole.text)
            share = (trace.limits.tokens - len(free.text.partition("</Goal>")[0]) - len("</Goal>")) // 3
            cut |= {len(whole.text) - share} if thread.status == "finished" else set()
    assert cut & set(range(1, len("</Path>")))  # a first share ended within a tag


def test_a_grammar_holds_over_forks_joins_and_cuts(spelling):
    for trace in traces(spelling, Limits(), n=4):
        assert [thread.status for thread in trace.threads] == ["finished"] * 4
        assert re.fullmatch(ROOT, trace.text)
        assert all(re.fullmatch(CHILD, thread.text) for thread in trace.threads[1:])


def test_children_and_single_threads_have_parameters_of_their_own(spelling):
    (trace,) = traces(
        spelling, Limits(), below={"max_tokens": 3},
        threads={"0.1": SamplingParams(structured_outputs={"choice": ["abc+def"]}, stop=["c+", "zz"], bad_words=["x"])},
    )  # fmt: skip
    shown = [(thread.status, thread.stop_reason, thread.text) for thread in trace.threads[1:]]
    assert [text for _, _, text in shown] == [shown[0][2], "abc+", shown[2][2]]
    assert shown[1] == ("finished", "c+", "abc+")
    assert {len(shown[0][2]), len(shown[2][2])} == {3}
    assert {shown[0][:2], shown[2][:2]} == {("length", "sampling.max_tokens=3")}
    assert trace.root.status == "finished"
    assert trace.sampling.of("0.1").stop == ("c+", "zz")


@pytest.mark.parametrize(
    ("fields", "text", "answer"),
    [
        ({"stop": "l+"}, "hel+", "he"),
        ({"stop": ["el", "o"], "min_tokens": 3}, "hel+lo", "hel+l"),
        ({"stop": "zz"}, "hel+lo+", "hel+lo+"),
        ({"stop_token_ids": LETTERS.convert_tokens_to_ids(["+"])}, "hel+", "hel"),
        ({"stop_token_ids": LETTERS.convert_tokens_to_ids(["l"]), "min_tokens": 3}, "hel+l", "hel+"),
        ({"stop_token_ids": LETTERS.convert_tokens_to_ids(["o"]), "min_tokens": 3}, "hel+lo", "hel+l"),
    ],
)
def test_a_stop_ends_the_thread_and_is_the_reason(spelling, fields, text, answer):
    session = Session(spelling.engine, bind("multiverse", LETTERS))
    sampling = SamplingParams(structured_outputs={"choice": ["hel+lo+"]}, **fields)
    (trace,) = spelling.run(session.run("b", sampling))
    assert (trace.text, trace.answer) == (text, answer)
    assert trace.status == "finished"


def test_log_probs_of_an_adapter_are_not_held_to_the_model_alone(spelling):
    (trace,) = traces(spelling, Limits())
    adapted = trace.model_copy(update={"sampling": SamplingParams(threads={"0.1": SamplingParams(lora="a")})})
    assert compare(spelling.plain, trace).largest < BOUND
    with pytest.raises(InputError, match="decoded with LoRA"):
        compare(spelling.plain, adapted)


def test_what_an_engine_cannot_do_is_refused_by_name(spelling, endless):
    for sampling, message in [
        (SamplingParams(lora="adapter"), "engine 'torch' cannot do lora='adapter': merge the adapter into the model"),
        (SamplingParams(below=SamplingParams(lora="a")), "engine 'torch' cannot do lora='a'"),
        (SamplingParams(logit_bias={99: 1.0}), "logit_bias: token id 99 is not in the vocabulary of 63"),
        (SamplingParams(threads={"0.1": SamplingParams(stop_token_ids=[63])}), "stop_token_ids: token id 63"),
        (SamplingParams(bad_words=[" "]), "bad_words: ' ' has no token"),
        (SamplingParams(structured_outputs={"regex": "(a"}), "structured_outputs cannot be read: "),
        (SamplingParams(structured_outputs={"json": '{"type": "nothing"}'}), "structured_outputs cannot be read: "),
        (SamplingParams(structured_outputs={"grammar": "root = a"}), "structured_outputs cannot be read: "),
    ]:
        with pytest.raises(InputError, match=re.escape(message)) as raised:
            check_sampling(sampling, endless.engine)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="engine 'torch' cannot do lora"):
        asyncio.run(endless.engine.generate(ask("lora", [1], 1, lora="adapter")))
