"""Grammars of what a thread samples, by xgrammar: which token may come next."""

import json
from typing import Any

import torch
from torch import Tensor

from parallel_reason.errors import InputError, first_line
from parallel_reason.sampling import StructuredOutputsParams

CACHE_BYTES = 1 << 28  # of compiled grammars


def parse(wanted: StructuredOutputsParams) -> Any:
    """An xgrammar ``Grammar``.

    Raises:
        InputError: it cannot be read, or xgrammar is not installed.
    """
    try:
        from xgrammar import Grammar
    except ImportError:
        raise InputError("structured_outputs need xgrammar; install it, or vLLM, which brings it") from None
    try:
        if wanted.regex is not None:
            return Grammar.from_regex(wanted.regex)
        if wanted.choice is not None:
            choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in wanted.choice)
            return Grammar.from_ebnf(f"root ::= {choices}")
        if wanted.grammar is not None:
            return Grammar.from_ebnf(wanted.grammar)
        schema = '{"type": "object"}' if wanted.json is None else wanted.json
        return Grammar.from_json_schema(schema if isinstance(schema, str) else json.dumps(schema))
    except (RuntimeError, ValueError) as error:  # xgrammar has classes for some faults only
        raise InputError(f"structured_outputs cannot be read: {first_line(error)}") from None


class Grammars:
    """Compiles grammars for one vocabulary; the compiler remembers them."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        """``vocabulary`` is how many logits the model has, at least as many as the tokenizer has tokens."""
        from xgrammar import GrammarCompiler, TokenizerInfo

        self._vocabulary = vocabulary
        # The end of a grammar is a token of its own, behind the vocabulary: tokens that end a thread are texts to it.
        information = TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary + 1, stop_token_ids=[vocabulary])
        self._compiler = GrammarCompiler(information, max_threads=1, cache_limit_bytes=CACHE_BYTES)

    def state(self, wanted: StructuredOutputsParams, ends: frozenset[int], stops: frozenset[int]) -> "GrammarState":
        """That of a thread that sampled nothing.

        Args:
            ends: tokens that come where the grammar may end, and nowhere else, even if their texts might.
            stops: tokens that may also come there.
        """
        return GrammarState(self._compiler.compile_grammar(parse(wanted)), self._vocabulary, ends, stops)


class GrammarState:
    """What a thread sampled so far, as its grammar reads it."""

    def __init__(self, compiled: Any, vocabulary: int, ends: frozenset[int], stops: frozenset[int]) -> None:
        """Nothing was sampled; see `Grammars.state`."""
        from xgrammar import GrammarMatcher, allocate_token_bitmask

        self._matcher = GrammarMatcher(compiled)
        self._vocabulary = vocabulary
        self._ends = ends
        self._only_at_end = [token for token in ends if token < vocabulary]
        self._also_at_end = [token for token in stops if token < vocabulary]
        self._free = False  # the thread went on after the end of the grammar
        self._bits = allocate_token_bitmask(1, vocabulary + 1)

    def add(self, token: int) -> None:
        """Take in a sampled token."""
        self._free = self._free or token in self._ends or not self._matcher.accept_token(token)

    def allowed(self, device: torch.device) -> Tensor | None:
        """Whether each token may come next, [vocabulary]; None if all may."""
        if self._free:
            return None
        self._matcher.fill_next_token_bitmask(self._bits)
        bits = self._bits[0].to(device)
        allowed = (bits[:, None] >> torch.arange(32, device=device) & 1).bool().flatten()
        may_end = allowed[self._vocabulary].clone()
        allowed[self._only_at_end] = may_end
        allowed[self._also_at_end] |= may_end
        return allowed[: self._vocabulary]
