"""How sure a model was of what it sampled, from the log-probs of its most likely tokens; pure.

The measures of DeepConf (Fu et al. 2025, arXiv 2508.15260).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from parallel_reason.strategies.branches import Floats


def token_confidences(top_logprobs: Sequence[Mapping[int, float]]) -> Floats:
    """The confidence of each token: minus the mean log-prob of the most likely ones at its place, [tokens].

    Args:
        top_logprobs: of each token, by token id; as many as were asked for (20 in DeepConf).
    """
    return np.array([-np.mean(list(top.values())) if top else 0.0 for top in top_logprobs], dtype=np.float64)


def window_means(confidences: Floats, window: int) -> Floats:
    """The mean of each ``window`` consecutive tokens, [tokens - window + 1]; of a shorter path, its mean, [1]."""
    if not len(confidences):
        return np.zeros(1)
    width = min(window, len(confidences))
    sums = np.concatenate([[0.0], np.cumsum(confidences)])
    return np.asarray((sums[width:] - sums[:-width]) / width)


def mean(confidences: Floats, window: int) -> float:
    """Over the whole path."""
    return float(confidences.mean()) if len(confidences) else 0.0


def tail(confidences: Floats, window: int) -> float:
    """Over the last window."""
    return mean(confidences[-window:], window)


def bottom(confidences: Floats, window: int) -> float:
    """The mean of the lowest tenth of its windows, at least one."""
    windows = np.sort(window_means(confidences, window))
    return float(windows[: max(1, len(windows) // 10)].mean())


def least(confidences: Floats, window: int) -> float:
    """Its lowest window."""
    return float(window_means(confidences, window).min())


MEASURES: dict[str, Callable[[Floats, int], float]] = {"mean": mean, "tail": tail, "bottom": bottom, "least": least}
