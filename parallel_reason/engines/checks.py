"""Sampling parameters that an engine cannot do, found before it runs anything."""

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError
from parallel_reason.sampling import SamplingParams


def check_sampling(sampling: SamplingParams, engine: Engine) -> None:
    """See that an engine can do all that is asked for, of every thread.

    Raises:
        InputError: see `check_thread`.
    """
    for params in sampling.every():
        check_thread(params, engine)


def check_thread(params: SamplingParams, engine: Engine) -> None:
    """See that an engine can do what is asked for of one thread; ``below`` and ``threads`` are of others.

    Raises:
        InputError: a field that it cannot do, a token id that is not in its vocabulary, a bad word without tokens or a
            grammar that cannot be read.
    """
    given = params.given()
    for field in given.keys() & engine.capabilities.refuses.keys():
        reason = engine.capabilities.refuses[field]
        raise InputError(f"engine {engine.name!r} cannot do {field}={given[field]!r:.60}: {reason}")
    for field in given.keys() & {"logit_bias", "allowed_token_ids", "stop_token_ids"}:
        wrong = next((token for token in given[field] if token >= engine.vocabulary), None)
        if wrong is not None:
            raise InputError(f"{field}: token id {wrong} is not in the vocabulary of {engine.vocabulary}")
    for word in params.bad_words:
        if not engine.tokenizer.encode(word.lstrip(), add_special_tokens=False):
            raise InputError(f"bad_words: {word!r} has no token; give a text that is not blank")
    if params.structured_outputs:
        from parallel_reason.engines.grammars import parse

        parse(params.structured_outputs)
