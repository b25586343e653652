"""The tags of a dialect in a tokenizer: which are tokens already, and which are added."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from parallel_reason.errors import ModelError


@dataclass(frozen=True, slots=True)
class TagTokens:
    """The tags of a dialect as tokens.

    Attributes:
        added: id of each tag that was no token, by tag.
        kept: id of each tag that was one already, by tag.
        words: for each added tag, the token ids of its words, of whose rows its own row is the mean.
    """

    added: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    words: dict[str, list[int]] = field(default_factory=dict)


def add_tags(tokenizer: Any, tags: Iterable[str]) -> TagTokens:
    """Make every tag one token of a tokenizer, which is changed.

    A tag that is a token already keeps its id. Tokens are added as ordinary ones, as ``<think>`` is in Qwen3: text that
    is decoded without special tokens still shows the tags.

    The words of a tag are its text without ``<`` and ``>``: ``</Path>`` begins as the mean of ``/`` and ``Path``.
    Source: Multiverse, train/utils.py of its released code.

    Raises:
        ModelError: the tokenizer has no pieces for the words of a tag, or does not write it as one token.
    """
    from tokenizers import AddedToken

    tags = list(dict.fromkeys(tags))
    before = tokenizer.get_vocab()
    words = {
        tag: list(tokenizer.encode(tag.strip("<>"), add_special_tokens=False)) for tag in tags if tag not in before
    }
    for tag, pieces in words.items():
        if not pieces or tokenizer.unk_token_id in pieces:
            raise ModelError(f"the tokenizer has no pieces for the words of {tag}: take one with a byte fallback")
    split = [tag for tag in tags if tokenizer.encode(tag, add_special_tokens=False) != [before.get(tag)]]
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in split])
    for tag in tags:
        ids = tokenizer.encode(f"a{tag}a", add_special_tokens=False)
        if tokenizer.convert_tokens_to_ids(tag) not in ids:
            raise ModelError(f"the tokenizer does not write {tag} as one token, even when it is added")
    after = {tag: int(tokenizer.convert_tokens_to_ids(tag)) for tag in tags}
    return TagTokens(
        added={tag: after[tag] for tag in words},
        kept={tag: token for tag, token in after.items() if tag not in words},
        words=words,
    )
