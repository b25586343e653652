"""What the learner's forward pass says of rollouts, beside what the engine said, in every dialect."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.grammars import build
from parallel_reason import ParallelLLM, SamplingParams
from rl.objectives import OBJECTIVES
from rl.policy import Policy, sampled_distribution
from rl.rows import IGNORED, collate, pack, padded
from tests.cases import CASES, dialect_of, many

SAMPLING = SamplingParams(temperature=1.0)


A_FEW = ["spawn_join", "threadweaver", "multiverse"]  # one of each join rule


@pytest.fixture(scope="module")
def rollouts(request, tmp_path_factory):
    """Traces of a dialect that fork, and the model that wrote them, with TRL's head."""
    folder = build(str(tmp_path_factory.mktemp("model")), "qwen3", [dialect_of(request.param)], seed=2)
    with ParallelLLM(folder, engine="torch", dialect=dialect_of(request.param)) as llm:
        traces = many(llm, request.param, 4)
    assert any(thread.forks for trace in traces for thread in trace.threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    Policy(SAMPLING).attach(model)
    return model, [pack(trace) for trace in traces]


@pytest.mark.parametrize("rollouts", CASES, indirect=True)
def test_the_learner_and_the_engine_agree_on_every_sampled_token(rollouts):
    model, rows = rollouts
    batch = collate(rows)
    with torch.no_grad():
        logprobs, entropy = Policy(SAMPLING).logprobs(model, batch)
        mismatch = Policy(SAMPLING).mismatch(model, batch, padded(rows, "sampler_logprobs", torch.nan), logprobs)
    assert len(mismatch) == sum(label != IGNORED for row in rows for label in row["shift_labels"])
    assert mismatch.max() < 1e-4
    assert (entropy[batch["shift_labels"] != IGNORED] > 0).all()


@pytest.mark.parametrize("rollouts", A_FEW, indirect=True)
@pytest.mark.parametrize(
    "options", [{"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8}, {"temperature": 1.0, "top_k": 3}]
)
def test_the_distribution_that_was_sampled_is_that_of_transformers(rollouts, options):
    model, rows = rollouts
    sampling = SamplingParams(**options)
    policy, batch = Policy(sampling), collate(rows[:1])
    policy.attach(model)
    labels = batch["shift_labels"][0]
    places = (labels != IGNORED).nonzero()[:, 0]
    with torch.no_grad():
        logprobs, entropy = policy.logprobs(model, batch)
        logits = model(**{name: value for name, value in batch.items() if name != "shift_labels"}).logits[0, places]
    for place, scores in zip(places.tolist(), logits, strict=True):
        kept = naive(scores / sampling.temperature, int(labels[place]), sampling)
        distribution = torch.tensor([kept.get(token, 0.0) for token in range(len(scores))])
        distribution /= distribution.sum()
        assert logprobs[0, place] == pytest.approx(distribution[labels[place]].log().item(), abs=1e-4)
        held = distribution[distribution > 0]
        assert entropy[0, place] == pytest.approx(-(held * held.log()).sum().item(), abs=1e-4)


@pytest.mark.parametrize("rollouts", A_FEW, indirect=True)
def test_each_thread_is_scored_as_it_was_sampled(rollouts):
    model, rows = rollouts
    sampling = SamplingParams(temperature=1.5, below=SamplingParams(temperature=0.5))
    for part, temperature in ((lambda thread: thread == 0, 1.5), (lambda thread: thread > 0, 0.5)):
        batch, alone = collate(rows[:1]), Policy(SamplingParams(temperature=temperature))
        chosen = torch.tensor([part(thread) for thread in rows[0]["threads"]])[None] & (
            batch["shift_labels"] != IGNORED
        )
        alone.attach(model)
        ways = torch.tensor([[-1 if thread < 0 else int(thread > 0) for thread in rows[0]["threads"]]])
        with torch.no_grad():
            together, _ = Policy(sampling).logprobs(model, {**batch, "ways": ways})
            expected, _ = alone.logprobs(model, batch)
        assert torch.allclose(together[chosen], expected[chosen], atol=1e-4)


def naive(scores, label, sampling):
    """The probability of every token that may be sampled, before it is made to sum to one: in words, sorted."""
    probabilities = scores.softmax(-1).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    if sampling.top_k:
        order = order[: sampling.top_k]
    total, kept = sum(probabilities[token] for token in order), {label: probabilities[label]}
    before = 0.0
    for token in order:
        if before / total >= sampling.top_p:
            break
        kept[token] = probabilities[token]
        before += probabilities[token]
    return kept


def gradient(model, batch, weight, rows):
    """The gradient of a REINFORCE loss over some rows of a batch, each of which weighs so much."""
    model.zero_grad()
    objective = OBJECTIVES["papo"]()
    mask = batch["shift_labels"] != IGNORED
    logprobs, _ = Policy(SAMPLING).logprobs(model, batch)
    loss = objective.token_loss(logprobs, logprobs, torch.tensor(weight)[:, None], mask) * mask
    loss[rows].sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("rollouts", A_FEW, indirect=True)
def test_how_a_batch_is_cut_does_not_change_its_gradient(rollouts):
    model, rows = rollouts
    weight = [1.0, -0.5, 0.25, 2.0]
    whole = gradient(model, collate(rows), weight, slice(None))
    parts = sum(gradient(model, collate([row]), [w], slice(None)) for row, w in zip(rows, weight, strict=True))
    assert torch.allclose(whole, parts, atol=1e-4 * float(whole.abs().max()))


def test_a_truncated_distribution_keeps_the_token_that_was_sampled():
    scores = sampled_distribution(torch.tensor([[5.0, 1.0, 0.0]]), torch.tensor([2]), 1.0, 1, 1.0)
    assert scores[0, 1] == -torch.inf
    assert torch.isfinite(scores[0, [0, 2]]).all()
