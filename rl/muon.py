"""Muon for the hidden matrices of a model, Adam for its embeddings, norms and biases, as one optimizer.

Source: Jordan et al., Muon (2024), with updates scaled to Adam's size (Liu et al., Muon is Scalable, 2025).
``torch.optim.Muon`` runs the Newton-Schulz steps in bfloat16, which CPUs without bf16 units emulate many times slower
than fp32; here they run in the gradient's own dtype.
"""

import math

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix to ``matrix`` [rows, columns]: singular values near 1."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.size(0) > matrix.size(1) else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.size(0) > matrix.size(1) else x


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Muon or Adam by parameter, at one learning rate, without weight decay."""

    def __init__(
        self, model: nn.Module, lr: float, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.98)
    ) -> None:
        """Every matrix of ``model`` that is no embedding is updated by Muon, all other parameters by Adam."""
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        hidden = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
        other = [p for p in model.parameters() if p.ndim != 2 or id(p) in embeddings]
        groups = [{"params": hidden, "muon": True}, {"params": other, "muon": False}]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas})

    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                rule = self._muon if group["muon"] else self._adam
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.add_(rule(parameter.grad, self.state[parameter], group), alpha=-group["lr"])

    def _muon(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, float]) -> Tensor:
        mean = state.setdefault("mean", torch.zeros_like(grad))
        mean.lerp_(grad, 1 - group["momentum"])
        return orthogonalise(grad.lerp(mean, group["momentum"])) * (0.2 * max(grad.shape) ** 0.5)

    def _adam(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, tuple[float, float]]) -> Tensor:
        beta1, beta2 = group["betas"]
        mean = state.setdefault("mean", torch.zeros_like(grad))
        square = state.setdefault("square", torch.zeros_like(grad))
        step = state.setdefault("step", torch.zeros(()))
        step += 1
        mean.lerp_(grad, 1 - beta1)
        square.lerp_(grad * grad, 1 - beta2)
        return (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + 1e-8)


def two_stages(step: int, first: int, second: int) -> float:
    """The learning rate at a step, as a fraction of the full one.

    Constant for half of the ``first`` steps, then a cosine to 1%; over the ``second`` another cosine, from 40%.
    """
    if step < first:
        return min(1.0, step / 100) * _cosine(1.0, max(0.0, step / first * 2 - 1))
    step -= first
    return min(0.4, 0.01 + step / 100) * _cosine(1.0, min(1.0, step / second))


def _cosine(top: float, progress: float) -> float:
    return 0.01 + (top - 0.01) * (1 + math.cos(math.pi * progress)) / 2
