"""Sampling parameters as records: vLLM's names, whose they are, what is refused, and what the page says of them."""

import inspect
import re
from pathlib import Path

import pytest
import vllm
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parallel_reason import Limits, SamplingParams
from parallel_reason.engines.openai.engine import NEEDS_SAMPLER
from parallel_reason.engines.seeded_draw import OVER_A_THREAD
from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.sampling import REFUSED, StructuredOutputsParams

PAGE = (Path(__file__).parents[1] / "docs" / "sampling.md").read_text()
OURS = {"below", "threads", "lora"}
# Set by vLLM itself, as its class says.
INTERNAL = {"output_text_buffer_length"}


def test_every_field_of_vllm_is_ours_or_refused_by_name():
    theirs = {name for name in vllm.SamplingParams.__struct_fields__ if not name.startswith("_")} - INTERNAL
    own = SamplingParams.model_fields.keys() - OURS
    assert own <= theirs
    assert theirs - own <= REFUSED.keys()
    assert not own & REFUSED.keys()
    grammars = inspect.signature(StructuredOutputsParams).parameters.keys()
    assert grammars < inspect.signature(vllm.sampling_params.StructuredOutputsParams).parameters.keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": "a"}, {"stop": ["a", "b"]}, {"stop": None}, {"stop_token_ids": None}, {"stop_token_ids": [3, 5]},
        {"bad_words": ["a"]}, {"top_k": -1}, {"logit_bias": {3: 1.5}}, {"allowed_token_ids": [1]}, {"min_p": 0.3},
        {"max_tokens": 5, "min_tokens": 5}, {"repetition_penalty": 1.1, "presence_penalty": -2.0}, {"ignore_eos": True},
    ],
)  # fmt: skip
def test_values_that_vllm_takes_mean_the_same(fields):
    ours, theirs = SamplingParams(temperature=1.0, **fields), vllm.SamplingParams(temperature=1.0, **fields)
    for field in fields:
        mine, its = getattr(ours, field), getattr(theirs, field)
        assert (list(mine) if isinstance(mine, tuple) else mine) == (0 if its == -1 else its)
    assert SamplingParams.model_validate_json(ours.model_dump_json()) == ours


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 1}, f"{name} has no meaning for a thread: {why}") for name, why in REFUSED.items()),
        ({"no_such": 1}, "no_such"),
        ({"stop": ""}, "stop.0"),
        ({"temperature": float("inf")}, "temperature"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias"),
        ({"logit_bias": {1: float("nan")}}, "logit_bias"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"min_tokens": 3, "max_tokens": 2}, "min_tokens=3 is above max_tokens=2"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "not regex and choice"),
        ({"structured_outputs": {}}, "not none"),
        ({"threads": {"1.0": {}}}, "threads.`1.0`"),
        ({"below": {"n": 2}}, "n is of the whole trace"),
        ({"below": {"below": {"seed": 1}}}, "seed is of the whole trace"),
        ({"threads": {"0.1": {"threads": {"0.1.0": {}}}}}, "threads is of the whole trace"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(fields, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        SamplingParams(**fields)


INNER = st.recursive(
    st.builds(SamplingParams, temperature=st.floats(0, 9)),
    lambda inner: st.builds(SamplingParams, temperature=st.floats(0, 9), below=inner),
    max_leaves=4,
)
LABELS = st.lists(st.integers(0, 2), max_size=4).map(lambda numbers: ".".join(map(str, [0, *numbers])))


@given(INNER, st.dictionaries(LABELS, INNER, max_size=4), LABELS)
def test_a_thread_has_its_own_parameters_or_those_of_the_next_above(outer, threads, label):
    sampling = SamplingParams.model_validate(outer.model_dump() | {"threads": threads})

    def naive(label):
        if label in threads:
            return threads[label]
        if label == "0":
            return outer
        above = naive(label.rpartition(".")[0])
        return above.below or above

    assert sampling.of(label).model_dump(exclude={"threads"}) == naive(label).model_dump(exclude={"threads"})


def test_threads_have_a_bound_on_their_length_by_default():
    assert Limits().tokens_per_thread == 32768
    assert Limits(tokens_per_thread=None).tokens_per_thread is None


def test_the_page_has_every_field_and_says_of_engines_what_they_declare():
    ours, theirs = (part.splitlines() for part in PAGE.split("The other fields of vLLM's class"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ours if line.startswith("| `")]
    fields = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert fields.keys() == SamplingParams.model_fields.keys()
    reasons = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", "\n".join(theirs), re.M))
    assert reasons == REFUSED
    for name, (_, _, vllm_, torch_, openai_) in fields.items():
        assert torch_ == ("no" if name in TorchEngine.capabilities.refuses else "yes")
        assert openai_ == ("[2]" if name in OVER_A_THREAD else "yes")
        assert vllm_ == ("yes [1]" if name in OVER_A_THREAD else "[3]" if name == "lora" else "yes")
    assert "seeded_sampler" in NEEDS_SAMPLER
