"""Families of requests on an engine that grafts: a parent, its children, and a join of their KV."""

import asyncio

import torch

from parallel_reason.engines.vllm.engine import VllmEngine
from tests.house import House, ask


class AbortError(Exception):
    pass


class Joining(House):
    """One whose engine grafts."""

    def __init__(self, folder, **options):
        super().__init__(folder, VllmEngine.start(folder, graft=True, **options))
        self.number = 0

    def name(self):
        self.number += 1
        return str(self.number)

    async def draw(self, ids, tokens, seed=None, cue=None, mask=None, **options):
        """The output of a request, aborted or not, after a check of its log-probs.

        Args:
            cue: called with the request's name as it begins.

        Raises:
            AbortError: it was aborted.
        """
        name = self.name()
        if cue:
            cue(name)
        output = await self.engine.generate(ask(name, ids, tokens, temperature=1.0, seed=seed, **options))
        if output.ids:
            self.check(ids, output, options.get("positions"), mask, drawn=True)
        if output.finish_reason == "abort":
            raise AbortError
        assert len(output.ids) == tokens or options.get("stop_texts")
        return output

    async def family(self, prompt, lengths, seed, suffix=(6, 7), cue=None, **options):
        """A parent, children that are sampled side by side, and what a join of them begins with.

        Returns:
            ids, positions, mask and held KV of the join; the KV is to be released.
        """
        parent = await self.draw(prompt, 0, cue=cue, keep_kv=True)
        sampled = await asyncio.gather(*(
            self.draw([*prompt, 1 + n], length, seed + n, cue, held=(parent.kv,), keep_kv=True, **options)
            for n, length in enumerate(lengths)
        ))  # fmt: skip
        whole = await asyncio.gather(*(
            self.draw([*prompt, 1 + n, *child.ids], 0, cue=cue, held=(child.kv,), keep_kv=True)
            for n, child in enumerate(sampled)
        ))  # fmt: skip
        begin, ids, positions = len(prompt), list(prompt), list(range(len(prompt)))
        parts, own = [parent.kv[:begin]], []
        for n, (child, kv) in enumerate(zip(sampled, whole, strict=True)):
            ids += [1 + n, *child.ids]
            positions += range(begin, begin + 1 + len(child.ids))
            own += [n] * (1 + len(child.ids))
            parts.append(kv.kv[begin:])
            kv.kv.release()
            child.kv.release()
        parent.kv.release()
        last = max(positions)
        ids += suffix
        positions += range(last + 1, last + 1 + len(suffix))
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        for one, a in enumerate(own):
            for other, b in enumerate(own):
                if a != b:
                    mask[begin + one, begin + other] = False
        return ids, positions, mask, tuple(parts)

    async def join(self, prompt, lengths, seed, tokens, between=None, cue=None, **options):
        """The ids that a join of a family begins with, and its output."""
        ids, positions, mask, held = await self.family(prompt, lengths, seed, cue=cue, **options)
        try:
            if between:
                await between()
            joined = await self.draw(ids, tokens, seed, cue, mask, positions=positions, held=held, **options)
        finally:
            for kv in held:
                kv.release()
        return ids, joined
