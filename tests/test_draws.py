"""How tokens are drawn: by the model's probabilities, with noise that depends on the seed and the number alone."""

import numpy as np
import pytest
import torch

from parallel_reason.engines.draws import Draw, draw_tokens

LOGITS = torch.tensor([1.0, 3.0, 2.0, 0.5, 2.9])


def draw(*, temperature=1.0, top_k=0, top_p=1.0, seed=0, number=0):
    return Draw(temperature, top_k, top_p, seed, number)


def drawn(draws, logits=LOGITS):
    return draw_tokens(logits.expand(len(draws), -1), draws).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-50, 1e-40, 1e-38, 1e-20, 1e-3])
@pytest.mark.parametrize("truncation", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_a_temperature_near_0_takes_the_most_likely_token(temperature, truncation):
    assert drawn([draw(temperature=temperature, number=n, **truncation) for n in range(20)]) == [1] * 20


def test_a_large_temperature_draws_every_token():
    assert set(drawn([draw(temperature=1e300, number=n) for n in range(200)])) == set(range(5))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature):
    count = 20_000
    tokens = drawn([draw(temperature=temperature, seed=n % 7, number=n) for n in range(count)])
    expected = (LOGITS / temperature).softmax(-1).numpy()
    observed = np.bincount(tokens, minlength=5) / count
    assert (np.abs(observed - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()


def test_top_k_and_top_p_leave_out_the_tail():
    assert set(drawn([draw(top_k=2, number=n) for n in range(300)])) == {1, 4}
    assert set(drawn([draw(top_p=0.8, number=n) for n in range(300)])) == {1, 2, 4}  # 0.38, 0.35 and 0.14
    assert set(drawn([draw(top_k=50, number=n) for n in range(300)])) == set(range(5))  # more than there are


def test_a_draw_does_not_depend_on_its_batch():
    logits = torch.randn(40, 1000, generator=torch.Generator().manual_seed(1))
    draws = [
        draw(temperature=(0.0, 0.7, 1.0)[n % 3], top_k=(0, 20)[n % 2], top_p=(1.0, 0.9)[n % 5 == 0], seed=n, number=n)
        for n in range(40)
    ]
    together = draw_tokens(logits, draws).tolist()
    assert [draw_tokens(logits[n : n + 1], [draws[n]]).item() for n in range(40)] == together
    assert draw_tokens(logits.flip(0), draws[::-1]).tolist() == together[::-1]


def test_seed_and_number_both_change_the_noise():
    flat = torch.zeros(100_000)  # so many tokens that two draws hardly ever agree
    pairs = [(seed, number) for seed in (0, 1, 2, 10, 11, 2**63, 2**70) for number in (0, 1, 2, 10, 110)]
    tokens = drawn([draw(seed=seed, number=number) for seed, number in pairs], flat)
    assert len(set(tokens)) == len(pairs)


def test_no_rows_give_no_tokens():
    assert draw_tokens(torch.empty(0, 5), []).tolist() == []
