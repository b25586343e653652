import copy
import io

import pytest
import torch
from torch import nn

from rl.muon import Muon, orthogonalise


def with_singular_values(rows, columns, values):
    left, _ = torch.linalg.qr(torch.randn(rows, len(values)))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values)))
    return left, right, left @ torch.diag(values) @ right.T


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (8, 8), (64, 64), (16, 100), (100, 16), (33, 7)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalise_keeps_the_directions_and_brings_all_singular_values_near_one(rows, columns, scale):
    torch.manual_seed(rows + columns)
    values = torch.linspace(0.1, 1.0, min(rows, columns)) * scale
    left, right, matrix = with_singular_values(rows, columns, values)
    result = orthogonalise(matrix)
    assert result.shape == matrix.shape
    turned = left.T @ result @ right
    assert ((turned.diag() > 0.5) & (turned.diag() < 1.5)).all()
    assert (turned - torch.diag(turned.diag())).abs().max() < 1e-3
    assert torch.linalg.svdvals(result).sub(turned.diag().sort(descending=True).values).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (128, 32)])
def test_random_matrices_come_out_with_singular_values_near_one(shape):
    torch.manual_seed(0)
    for _ in range(5):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_nothing_to_follow_is_nowhere_to_go():
    assert torch.equal(orthogonalise(torch.zeros(3, 5)), torch.zeros(3, 5))


class Regression(nn.Module):
    """A model with one of each: an embedding that is also the output, a norm, a bias, and two hidden matrices."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.hidden = nn.Linear(16, 24)
        self.norm = nn.LayerNorm(24)
        self.down = nn.Linear(24, 16, bias=False)
        self.out = nn.Linear(16, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, ids):
        return self.out(self.down(self.norm(self.hidden(self.words(ids)))))


def regression():
    torch.manual_seed(0)
    return Regression()


def backward(model):
    ids = torch.arange(11)
    loss = nn.functional.cross_entropy(model(ids), (ids * 3 + 1) % 11)
    model.zero_grad()
    loss.backward()
    return loss.item()


def train(model, optimizer, steps):
    losses = []
    for _ in range(steps):
        losses.append(backward(model))
        optimizer.step()
    return losses


def test_steps_lower_the_loss():
    model = regression()
    losses = train(model, Muon(model, lr=0.02), 40)
    assert losses[-1] < 0.1 * losses[0]


def test_a_step_without_a_gradient_changes_nothing():
    model = regression()
    before = copy.deepcopy(model.state_dict())
    Muon(model, lr=0.02).step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def first_step(lr=0.01):
    """What the first step subtracted from every parameter, over the learning rate, and the gradients."""
    model = regression()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = Muon(model, lr)
    backward(model)
    optimizer.step()
    moved = {name: (before[name] - value.detach()) / lr for name, value in model.named_parameters()}
    return moved, {name: value.grad for name, value in model.named_parameters()}


def test_hidden_matrices_move_by_a_semi_orthogonal_matrix_of_adams_size():
    moved, _ = first_step()
    for name in ("hidden.weight", "down.weight"):
        values = torch.linalg.svdvals(moved[name]) / (0.2 * max(moved[name].shape) ** 0.5)
        assert values.max() < 1.5
        assert values[:9].min() > 0.5  # eleven examples span no more than eleven directions


def test_embeddings_norms_and_biases_move_as_under_adam():
    moved, grads = first_step()
    for name in ("words.weight", "norm.weight", "norm.bias", "hidden.bias"):
        known = grads[name].abs() > 1e-5
        assert known.any()
        assert torch.allclose(moved[name][known], grads[name][known].sign(), atol=1e-2)


def test_later_steps_of_an_embedding_equal_torchs_own_adam():
    model = nn.Embedding(5, 3)
    other = copy.deepcopy(model)
    mine, adam = Muon(model, lr=0.01), torch.optim.Adam(other.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-8)
    for step in range(10):
        for one, optimizer in ((model, mine), (other, adam)):
            one.weight.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    assert torch.allclose(model.weight, other.weight, atol=1e-6)


def test_a_run_that_was_saved_goes_on_exactly():
    model = regression()
    optimizer = Muon(model, lr=0.02)
    train(model, optimizer, 5)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses = train(model, optimizer, 5)

    file.seek(0)
    saved = torch.load(file)
    other = Regression()
    other.load_state_dict(saved["model"])
    resumed = Muon(other, lr=0.5)
    resumed.load_state_dict(saved["optimizer"])
    assert train(other, resumed, 5) == losses
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
