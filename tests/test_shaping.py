"""What rules of one thread make of its logits, beside vLLM's and transformers' own, and an exhaustive search."""

import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from vllm.model_executor.layers.utils import apply_penalties
from vllm.v1.sample.ops.bad_words import apply_bad_words

from parallel_reason import SamplingParams
from parallel_reason.engines.draws import Draw, draw_tokens
from parallel_reason.engines.grammars import Grammars
from parallel_reason.engines.seeded_draw import SeededDraw, word_ids
from parallel_reason.engines.shaping import Shaping
from tests.letters import WORDS, letter_tokenizer

SIZE = 12
IDS = st.lists(st.integers(0, SIZE - 1), max_size=8)
RULES = st.fixed_dictionaries(
    {
        "presence_penalty": st.sampled_from([0.0, -1.5, 0.7]),
        "frequency_penalty": st.sampled_from([0.0, -0.3, 2.0]),
        "repetition_penalty": st.sampled_from([1.0, 0.5, 1.7]),
    }
)


def logits_of(seed):
    return 3 * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def shaped(logits, ids=(), new=(), grammars=None, **fields):
    """Logits after the rules of a thread that began with ``ids``, in one go and token by token."""
    own = {name: fields.pop(name) for name in fields.keys() & SeededDraw.model_fields.keys()}
    draw = SeededDraw(seed=0, sampling=SamplingParams(**fields), **own)
    whole, stepwise = Shaping(draw, ids, new, grammars), Shaping(draw, ids, (), grammars)
    for token in new:
        stepwise(logits)
        stepwise.add(0)  # drawn in a step that is dropped
        stepwise.keep(len(stepwise._new) - 1)
        stepwise.add(token)
    before = logits.clone()
    result = whole(logits)
    assert torch.equal(stepwise(logits), result)
    assert torch.equal(logits, before)
    return result


@given(RULES, st.integers(0, 99), IDS, IDS, IDS)
def test_penalties_over_a_thread_are_vllms_over_one_request(rules, seed, prompt, sampled, new):
    """The prompt of a thread is all it sees that it did not sample; its output may come from several requests."""
    reference = logits_of(seed)[None].clone()
    apply_penalties(
        reference,
        torch.tensor([[*prompt, SIZE]]),  # SIZE is vLLM's padding
        torch.tensor([[*sampled, *new, SIZE]]),
        *(torch.tensor([rules[name]]) for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")),
    )
    ours = shaped(logits_of(seed), [*prompt, *sampled], new, sampled=tuple(sampled), **rules)
    torch.testing.assert_close(ours, reference[0])


@given(st.integers(0, 99), IDS.filter(bool), st.sampled_from([0.5, 1.7]))
def test_the_repetition_penalty_is_that_of_transformers(seed, seen, penalty):
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits_of(seed)[None].clone())
    torch.testing.assert_close(shaped(logits_of(seed), seen, repetition_penalty=penalty), expected[0])


@given(st.integers(0, 99), st.dictionaries(st.integers(0, SIZE - 1), st.floats(-9, 9), min_size=1))
def test_a_bias_is_that_of_transformers(seed, bias):
    reference = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})
    expected = reference(torch.tensor([[0]]), logits_of(seed)[None].clone())
    torch.testing.assert_close(shaped(logits_of(seed), logit_bias=bias), expected[0])


@given(
    st.integers(0, 99),
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), max_size=3),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_bad_words_are_those_of_vllm_and_transformers(seed, sampled, new, words):
    reference = logits_of(seed)[None].clone()
    apply_bad_words(reference, {0: words}, [[*sampled, *new]])
    fields = {"bad_words": tuple(map(tuple, words)), "tail": len(sampled)}
    assert torch.equal(shaped(logits_of(seed), [3, *sampled], new, **fields), reference[0])
    if sampled or new:
        expected = NoBadWordsLogitsProcessor(words)(torch.tensor([[*sampled, *new]]), logits_of(seed)[None].clone())
        assert torch.equal(expected, reference)


def test_a_bad_word_never_begins_in_what_others_wrote():
    word = {"bad_words": ((1, 2),)}
    assert shaped(logits_of(0), [5, 1], tail=1, **word)[2] == -torch.inf
    assert shaped(logits_of(0), [5, 1], tail=0, **word)[2] > -torch.inf


def test_bad_words_have_the_tokens_that_vllm_gives_them():
    from vllm import SamplingParams as OfVllm

    class Tokenizer:
        max_token_id = 50

        def encode(self, text, add_special_tokens):
            table = {"ab": [1, 2], " ab": [9, 2], "c": [3], " c": [30], "d": [4], " d": [40, 4]}
            return table[text]

    words = ("ab", "  c", "d")
    theirs = OfVllm(bad_words=list(words))
    theirs.update_from_tokenizer(Tokenizer())
    assert sorted(map(list, word_ids(Tokenizer(), words))) == sorted(theirs._bad_words_token_ids)


def test_ends_wait_for_min_tokens_over_all_requests():
    rule = {"min_tokens": 5, "ends": frozenset({3, 7}), "tags": frozenset({4})}
    for first, new, held in ((0, [1, 1], True), (3, [1], True), (3, [1, 1], False), (9, [], False)):
        ours = shaped(logits_of(1), [0], new, first_draw=first, **rule)
        assert [token for token in range(SIZE) if ours[token] == -torch.inf] == ([3, 7] if held else [])


def test_a_rule_that_leaves_no_token_is_passed_over():
    allowed = {"allowed_token_ids": [3], "ends": frozenset({3}), "min_tokens": 2}
    assert shaped(logits_of(2), **allowed).isfinite().nonzero().tolist() == [[3]]
    assert shaped(logits_of(2), allowed_token_ids=[3, 4], bad_words=((3,), (4,))).isfinite().sum() == 2


@pytest.mark.parametrize(
    "truncation", [{"min_p": 0.2}, {"min_p": 0.05, "top_k": 6, "top_p": 0.8}, {"min_p": 0.3, "top_p": 0.9}]
)
@pytest.mark.parametrize("temperature", [0.6, 1.4])
def test_what_can_be_drawn_and_how_often_is_what_transformers_says(truncation, temperature):
    logits, count = logits_of(7), 4000
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), MinPLogitsWarper(truncation["min_p"])])
    warpers += [TopKLogitsWarper(truncation["top_k"])] if "top_k" in truncation else []
    warpers += [TopPLogitsWarper(truncation["top_p"])] if "top_p" in truncation else []
    expected = warpers(torch.tensor([[0]]), logits[None].clone())[0].softmax(-1)
    min_p = truncation["min_p"]
    draws = [
        Draw(temperature, truncation.get("top_k", 0), truncation.get("top_p", 1.0), 1, number, min_p)
        for number in range(count)
    ]
    observed = torch.bincount(draw_tokens(logits.expand(count, -1), draws), minlength=SIZE) / count
    assert not observed[expected == 0].any()
    assert (abs(observed - expected) < 5 * (expected * (1 - expected) / count).sqrt() + 1e-9).all()


PATTERNS = ["(ab|ac)d*", "a{2,3}(b|cd)", "x|yz", "a(b(c|d))?"]
ALPHABET = "abcdxyz"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regex_allows_what_an_exhaustive_search_says(pattern):
    tokenizer, end, tag = letter_tokenizer(), len(WORDS) - 1, len(WORDS) - 2
    grammars = Grammars(tokenizer, len(WORDS) + 3)  # more logits than tokens, as in padded vocabularies
    texts = ["".join(text) for size in range(7) for text in itertools.product(ALPHABET, repeat=size)]
    whole = {text for text in texts if re.fullmatch(pattern, text)}
    prefixes = {text[:size] for text in whole for size in range(len(text) + 1)}
    fields = {"structured_outputs": {"regex": pattern}, "ends": frozenset({end}), "tags": frozenset({tag, 10_000})}
    for text in sorted(text for text in prefixes if len(text) < 5):
        ids = [WORDS.index(letter) for letter in text]
        ours = shaped(torch.zeros(len(WORDS) + 3), [5, *ids[:2]], ids[2:], grammars, sampled=tuple(ids[:2]), **fields)
        allowed = {token for token in range(len(ours)) if ours[token] > -torch.inf}
        expected = {WORDS.index(letter) for letter in ALPHABET if text + letter in prefixes}
        assert allowed == expected | ({end, tag} if text in whole else set()), text


def test_tokens_that_end_a_thread_come_where_its_grammar_may_end():
    """A control token nowhere else, though its text might; a stop of the caller also where its text may come."""
    a, b, c = (WORDS.index(letter) for letter in "abc")
    fields = {
        "structured_outputs": {"regex": "[bc]+a"},
        "stop_token_ids": [b],
        "ends": frozenset({b}),
        "tags": frozenset({c}),
        "grammars": Grammars(letter_tokenizer(), len(WORDS)),
    }
    for new, allowed in (([], [b]), ([b], [a, b]), ([b, a], [b, c])):
        ours = shaped(torch.zeros(len(WORDS)), new=new, **fields)
        assert ours.isfinite().nonzero().flatten().tolist() == allowed


def test_after_the_end_of_a_grammar_a_thread_is_free():
    grammars, end = Grammars(letter_tokenizer(), len(WORDS)), len(WORDS) - 1
    fields = {"structured_outputs": {"choice": ["ab"]}, "ends": frozenset({end}), "grammars": grammars}
    logits = torch.zeros(len(WORDS))
    assert shaped(logits, new=[WORDS.index("a"), WORDS.index("b"), end, 9], **fields).isfinite().all()
