"""What the rules of one thread make of its logits, before temperature and truncation.

The order is vLLM's: grammar, allowed tokens, bad words, ``min_tokens``, bias, penalties. A rule that would leave no
token at all is passed over.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from parallel_reason.engines.grammars import Grammars, GrammarState
from parallel_reason.engines.seeded_draw import SeededDraw


class Shaping:
    """The rules of one request, and what it sampled so far."""

    def __init__(self, draw: SeededDraw, ids: Sequence[int], new: Sequence[int], grammars: Grammars | None) -> None:
        """A request that begins with ``ids`` and has sampled ``new`` since.

        Args:
            grammars: of the model's vocabulary; needed for structured outputs.
        """
        self.draw = draw
        self._ids = list(ids)
        self._grammars = grammars
        self._start(list(new))

    def _start(self, new: list[int]) -> None:
        sampling = self.draw.sampling
        self._new: list[int] = []
        self._counts: Tensor | None = None  # of each token in the thread's output, [vocabulary]
        self._seen: Tensor | None = None  # whether the thread sees each token, [vocabulary]
        self._grammar: GrammarState | None = None
        if sampling.structured_outputs and self._grammars:
            tags, ends = self.draw.tags, self.draw.ends
            self._grammar = self._grammars.state(sampling.structured_outputs, tags, ends - tags)
            for token in self.draw.sampled:
                self._grammar.add(token)
        for token in new:
            self.add(token)

    def add(self, token: int) -> None:
        """The token that was drawn is the next one."""
        self._new.append(token)
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True
        if self._grammar is not None:
            self._grammar.add(token)

    def keep(self, count: int) -> None:
        """All but the first so many new tokens were dropped by the engine."""
        if count < len(self._new):
            self._start(self._new[:count])

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits of the next token, [vocabulary]; those given are left as they are."""
        sampling, device, size = self.draw.sampling, logits.device, len(logits)
        if self._grammar is not None and (allowed := self._grammar.allowed(device)) is not None:
            logits = _only(logits, allowed)
        if sampling.allowed_token_ids:
            logits = _only(logits, _marked(sampling.allowed_token_ids, size, device))
        if banned := self._ends_of_bad_words():
            logits = _only(logits, ~_marked(banned, size, device))
        if self.draw.first_draw + len(self._new) < sampling.min_tokens:
            logits = _only(logits, ~_marked(sorted(self.draw.ends), size, device))
        if sampling.logit_bias:
            logits = logits.clone()
            logits[list(sampling.logit_bias)] += torch.tensor(list(sampling.logit_bias.values()), device=device)
        if sampling.repetition_penalty != 1:
            if self._seen is None:
                self._seen = _marked(self._ids + self._new, size, device)
            penalised = torch.where(
                logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty
            )
            logits = torch.where(self._seen, penalised, logits)
        if sampling.frequency_penalty or sampling.presence_penalty:
            if self._counts is None:
                output = torch.tensor([*self.draw.sampled, *self._new], dtype=torch.int64, device=device)
                self._counts = torch.bincount(output, minlength=size)
            logits = logits - sampling.frequency_penalty * self._counts
            logits = logits - sampling.presence_penalty * (self._counts > 0)
        return logits

    def _ends_of_bad_words(self) -> list[int]:
        """Last tokens of the words whose other tokens the thread sampled last."""
        longest = max(map(len, self.draw.bad_words), default=1)
        recent = (self._ids[len(self._ids) - self.draw.tail :] + self._new)[-longest:]
        return [
            word[-1] for word in self.draw.bad_words if len(word) == 1 or recent[1 - len(word) :] == list(word[:-1])
        ]


def _marked(ids: Sequence[int], size: int, device: torch.device) -> Tensor:
    """Which tokens are among ``ids``, [size]; ids that the model does not have are left out."""
    marked = torch.zeros(size, dtype=torch.bool, device=device)
    marked[torch.tensor([token for token in ids if token < size], dtype=torch.int64, device=device)] = True
    return marked


def _only(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits of allowed tokens; all of them if that would be none."""
    kept = logits.masked_fill(~allowed, -torch.inf)
    return kept if kept.isfinite().any() else logits
