"""Objectives beside TRL's own loss on rollouts of one thread, and beside examples computed by hand."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOTrainer

from rl.objectives import OBJECTIVES
from rl.objectives.terms import kl_to_reference

GROUPS, ROLLOUTS, TOKENS = 3, 4, 6
# TRL's names for what ours are on rollouts of one thread: its loss_type, scale_rewards and level of the ratio.
IN_TRL = {
    "grpo": ("bnpo", "group", "token"),
    "dr_grpo": ("dr_grpo", "none", "token"),
    "p_grpo": ("bnpo", "none", "token"),
    "apr": ("grpo", "group", "token"),
    "gspo": ("grpo", "group", "sequence"),
}
OPTIONS = {"dr_grpo": {"longest": TOKENS}, "gspo": {"clip_low": 0.1, "clip_high": 0.2}}


def rollouts(seed):
    """Log-probs now and when sampled, [rows, tokens], a mask, and rewards, [groups, rollouts]."""
    made = torch.Generator().manual_seed(seed)
    rows = GROUPS * ROLLOUTS
    new, old = (-3 * torch.rand(rows, TOKENS, generator=made) for _ in range(2))
    lengths = torch.randint(1, TOKENS + 1, (rows, 1), generator=made)
    rewards = torch.rand(GROUPS, ROLLOUTS, generator=made)
    return new, new - 0.3 * (new - old), torch.arange(TOKENS)[None] < lengths, rewards


def our_loss(objective, new, old, mask, rewards, kept=None):
    kept = torch.ones_like(rewards, dtype=torch.bool) if kept is None else kept
    advantages = objective.advantages(rewards, kept).flatten()[:, None]
    weights = objective.weights(mask.sum(1).reshape(rewards.shape), kept).flatten()[:, None]
    return (weights * objective.token_loss(new, old, advantages, mask) * mask).sum()


def trl_loss(objective, new, old, mask, rewards):
    """TRL's loss of the same rollouts; its trainer is given the log-probs in place of a model."""
    loss_type, scale, level = IN_TRL[objective.name]
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True) + 1e-4 if scale == "group" else 1.0
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **options: (new, torch.zeros_like(new), None),
        _metrics=defaultdict(lambda: defaultdict(list)), accelerator=accelerator, model=SimpleNamespace(training=True),
        args=SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        aux_loss_enabled=False, beta=0.0, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        current_gradient_accumulation_steps=1, max_completion_length=TOKENS, _entropy_bonus_enabled=False,
        importance_sampling_level=level, loss_type=loss_type, vllm_importance_sampling_correction=False,
        epsilon_low=objective.clip_low, epsilon_high=objective.clip_high,
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(len(new), 1, dtype=torch.long), "prompt_mask": torch.ones(len(new), 1),
        "completion_ids": torch.zeros(new.shape, dtype=torch.long), "completion_mask": mask,
        "advantages": (centred / spread).flatten(), "old_per_token_logps": old,
    }  # fmt: skip
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("name", IN_TRL)
@given(seed=st.integers(0, 2**31))
def test_on_rollouts_of_one_thread_loss_and_gradient_are_those_of_trl(name, seed):
    objective = OBJECTIVES[name](**OPTIONS.get(name, {}))
    new, old, mask, rewards = rollouts(seed)
    if name == "apr":  # its deviation is that of the population
        rewards = rewards.round()
    ours, theirs = new.clone().requires_grad_(), new.clone().requires_grad_()
    our_loss(objective, ours, old, mask, rewards).backward()
    trl_loss(objective, theirs, old, mask, rewards).backward()
    scale = population_over_sample(rewards) if name == "apr" else torch.ones(len(new), 1)
    assert torch.allclose(ours.grad, theirs.grad * scale, atol=1e-6, rtol=1e-4)


def population_over_sample(rewards):
    """How much larger an advantage is with the deviation of a population, each with its epsilon, [rows, 1]."""
    wide, narrow = rewards.std(1) + 1e-4, rewards.std(1, unbiased=False) + 1e-10
    return (wide / narrow).nan_to_num(1.0, posinf=1.0).repeat_interleave(ROLLOUTS)[:, None]


def one_group(*rewards):
    return torch.tensor([rewards]), torch.ones(1, len(rewards), dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grpo", [0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4)]),
        ("dr_grpo", [0.5, -0.5]),
        ("p_grpo", [0.5, -0.5]),
        ("papo", [0.5 / 0.5**0.5, -0.5 / 0.5**0.5]),
        ("apr", [1.0, -1.0]),
        ("gspo", [0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4)]),
    ],
)
def test_a_success_against_a_failure_has_the_baseline_one_half(name, expected):
    advantages = OBJECTIVES[name]().advantages(*one_group(1.0, 0.0))
    assert advantages[0].tolist() == pytest.approx(expected)


def test_papo_divides_by_the_deviation_of_the_whole_update():
    rewards = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    advantages = OBJECTIVES["papo"]().advantages(rewards, torch.ones(2, 2, dtype=torch.bool))
    assert advantages.tolist() == [[1.0, -1.0], [0.0, 0.0]]  # the mean is 0.5, the deviation 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_group_without_variance_has_no_gradient_and_no_nan(name):
    advantages = OBJECTIVES[name]().advantages(*one_group(1.0, 1.0, 1.0))
    assert advantages.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rollouts_that_are_left_out_change_nothing(name):
    objective = OBJECTIVES[name](**OPTIONS.get(name, {}))
    new, old, mask, rewards = rollouts(5)
    kept = torch.ones_like(rewards, dtype=torch.bool)
    kept[:, -1] = False
    fewer = kept.flatten()
    without = our_loss(objective, new[fewer], old[fewer], mask[fewer], rewards[:, :-1])
    assert torch.allclose(our_loss(objective, new, old, mask, rewards, kept), without, atol=1e-6)


def test_papo_has_the_gradient_of_the_log_probs_wherever_the_ratio_stands():
    new, old, mask, rewards = rollouts(3)
    new.requires_grad_()
    objective = OBJECTIVES["papo"]()
    our_loss(objective, new, old - 9, mask, rewards).backward()
    advantages = objective.advantages(rewards, torch.ones_like(rewards, dtype=torch.bool)).flatten()[:, None]
    assert torch.allclose(new.grad, -advantages * mask / mask.sum(), atol=1e-7)


def test_the_divergence_is_zero_at_the_reference_and_positive_elsewhere():
    new, old, _, _ = rollouts(1)
    assert torch.equal(kl_to_reference(new, new), torch.zeros_like(new))
    assert (kl_to_reference(new, old) > 0).all()
