"""A request while vLLM decodes it."""

from collections.abc import Iterator
from typing import Any

from parallel_reason.engines.base import EngineRequest, OnTokens, RequestOutput, TokenDelta


class LiveRequest:
    """What has come of an `EngineRequest`, over all vLLM requests that it takes: more than one if a pin is lost.

    Attributes:
        aborted: whether the caller wants no more of it.
        stopped: whether a stop text was completed.
    """

    def __init__(self, request: EngineRequest, tokenizer: Any, on_tokens: OnTokens | None = None) -> None:
        """Nothing has come yet."""
        self.request = request
        self.output = RequestOutput()
        self.aborted = False
        self.stopped = False
        self._on_tokens = on_tokens
        self._stops = request.stops_in(tokenizer)
        self._received = 0  # tokens of the vLLM request that runs
        self._versions: list[tuple[int, int]] = []  # of its tokens from a number on, the policy version

    def begin(self, policy_version: int) -> None:
        """A vLLM request begins, under these weights."""
        self._received = 0
        self._versions = [(0, policy_version)]

    def weights_changed(self, sampled: int | None, policy_version: int) -> None:
        """The next tokens come from new weights.

        Args:
            sampled: tokens that the vLLM request has from the old ones, whether `add` had them or not; None if vLLM
                does not know the request, because it has not started or has ended.
        """
        if sampled is not None or not self._received:
            self._versions.append((sampled or 0, policy_version))

    def add(self, completion: Any) -> None:
        """Take in what vLLM reports of new tokens, up to the one that completes a stop text.

        Args:
            completion: vLLM's ``CompletionOutput`` with ``token_ids`` and flat ``logprobs`` of the new tokens.
        """
        if self.stopped:
            return
        ids = list(completion.token_ids)
        kept = self._stops.kept(ids) if self._stops else None
        self.stopped = kept is not None
        for start, stop, policy_version in self._spans(len(ids) if kept is None else kept):
            delta = self._delta(ids[start:stop], completion.logprobs, start, policy_version)
            self.output.add(delta)
            if self._on_tokens:
                self._on_tokens(delta)
        self._received += len(ids)

    def _delta(self, ids: list[int], flat: Any, first: int, policy_version: int) -> TokenDelta:
        """The tokens from the ``first`` on of a vLLM output."""
        top = self.request.sampling.logprobs
        places = range(first, first + len(ids))
        chosen = [flat.logprobs[flat.start_indices[place]] for place in places]  # vLLM puts the sampled token first
        return TokenDelta(ids, chosen, [_top(flat, place, top) for place in places] if top else [], policy_version)

    def _spans(self, count: int) -> Iterator[tuple[int, int, int]]:
        """The parts of the next ``count`` tokens that the same weights sampled: from, to, policy version."""
        start = 0
        for number, (_, policy_version) in enumerate(self._versions):
            after = self._versions[number + 1 :]
            stop = min([count, *(changed - self._received for changed, _ in after)])
            if stop > start:
                yield start, stop, policy_version
                start = stop


def _top(flat: Any, place: int, top: int) -> dict[int, float]:
    """The most likely tokens at one place; the sampled token stands before them, and may be one of them."""
    entries = slice(flat.start_indices[place], flat.end_indices[place])
    found = dict(zip(flat.token_ids[entries], flat.logprobs[entries], strict=True))
    return dict(sorted(found.items(), key=lambda entry: -entry[1])[:top])
