import pytest
from parallel_reason import ParallelLLM, SamplingParams
from tests.conftest import soup_model
from tests.test_soup import LIMITS, tokens
def test_it(soup_model):
    with ParallelLLM(soup_model, engine="torch") as llm:
        a = llm.generate(["abc", "t<spawn>"], SamplingParams(temperature=1.5, n=40, seed=11), LIMITS)
        b = llm.generate("abc", SamplingParams(temperature=1.5, n=20, seed=11), LIMITS)
        assert [tokens(t) for t in b] == [tokens(t) for t in a[:20]]
        assert len({str(tokens(t)) for t in b}) > 10
        print([t.ledger.forks for t in b])
