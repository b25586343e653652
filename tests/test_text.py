"""Text of a stream, piece by piece, is the text of the whole."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from parallel_reason.tasks.countdown.vocabulary import tokenizer as countdown_tokenizer
from parallel_reason.text import TextStream, decode

WORDS = "naïve café 東京 🙂🙃 three threads join; 12+34=46, and so on. "


def byte_level():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator([WORDS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [(byte_level(), WORDS * 3), (countdown_tokenizer(), "22,26=27<spawn>26+22=48 31 53<sep>27 48:75 21 _ _|31 no")],
)
def test_pieces_of_a_stream_make_the_whole_text(tokenizer, text):
    ids = tokenizer.encode(text)
    for seed in range(50):
        rng = random.Random(seed)
        stream, pieces, place = TextStream(tokenizer), [], 0
        while place < len(ids):
            size = rng.randint(1, 4)
            pieces.append(stream.add(ids[place : place + size]))
            place += size
        assert "".join(pieces) == decode(tokenizer, ids) == text
        assert not any("\ufffd" in piece for piece in pieces)


def one_token_a_byte():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_a_character_is_held_back_until_all_its_tokens_are_there():
    tokenizer = one_token_a_byte()
    stream = TextStream(tokenizer)
    assert [stream.add([token]) for token in tokenizer.encode("a🙂b")] == ["a", "", "", "", "🙂", "b"]
    assert stream.finish() == ""


@pytest.mark.parametrize("size", [1, 2, 99])
@pytest.mark.parametrize("text", ["", "a", "a🙂", "🙂a東", "東🙂🙂"])
def test_a_stream_cut_anywhere_and_finished_has_the_whole_text(text, size):
    """A stream that ends within a character shows the same replacement character as the whole text does."""
    tokenizer = one_token_a_byte()
    ids = tokenizer.encode(text)
    for stop in range(len(ids) + 1):
        cut, stream = ids[:stop], TextStream(tokenizer)
        pieces = [stream.add(cut[place : place + size]) for place in range(0, stop, size)]
        assert "".join(pieces) + stream.finish() == decode(tokenizer, cut)
        assert stream.finish() == ""
