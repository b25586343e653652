"""Stop texts: found at the token that completes them, in sampled text only; each against a naive reading of it."""

import itertools

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.text import StopTexts, enders
from tests.house import House, ask
from tests.letters import build_endless, byte_tokenizer

PRINTABLE = bytes(range(32, 127))
EMOJI = "😀".encode()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def kept(tokenizer, texts, data):
    return StopTexts(tokenizer, texts).kept(list(data))


@pytest.mark.parametrize(
    ("texts", "data", "count"),
    [
        (("</a>",), b"one</a>two", 7),
        (("</a>", "</b>"), b"one</b></a>", 7),
        (("</a>",), b"</a", None),
        (("</a>",), b"</</</a>", 8),
        (("ab", "b"), b"cab", 3),
        (("</a>",), "é</a>".encode(), 6),
        (("</a>",), EMOJI + b"</a>" + EMOJI, 8),
        (("</a>",), EMOJI[2:] + b"</a>", 6),  # the prompt ended within an emoji
        (("</a>",), EMOJI[:2] + b"</a>", 6),  # the model never writes the rest of it
        (("😀",), b"ab" + EMOJI, 6),
        (("😀",), EMOJI[2:], None),  # its beginning is not sampled text
        (("é!",), "aé!".encode(), 4),
        (("\u2028",), "a\u2028b".encode(), 4),
    ],
)
def test_a_stop_ends_with_the_token_that_completes_it(tokenizer, texts, data, count):
    assert kept(tokenizer, texts, data) == count


def test_a_token_that_ends_a_stop_and_begins_a_character_is_the_one_that_completes_it():
    """Byte pairs merge across characters: here the end of a tag and the first byte of an emoji are one token."""
    words = {character: byte for byte, character in bytes_to_unicode().items()}
    end, first = bytes_to_unicode()[ord(">")], bytes_to_unicode()[EMOJI[0]]
    core = Tokenizer(models.BPE({**words, end + first: 256}, merges=[(end, first)]))
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert kept(tokenizer, ("</a>",), [*b"x</a", 256, *EMOJI[1:]]) == 5


def test_tokens_one_by_one_or_in_chunks_find_the_same(tokenizer):
    data = list(("é" + "😀" * 3 + "<tag>").encode() + b"rest")
    for size in range(1, len(data)):
        stops, count = StopTexts(tokenizer, ("<tag>",)), 0
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            found = stops.kept(chunk)
            count += len(chunk) if found is None else found
            if found is not None:
                break
        assert bytes(data[:count]).endswith(b"<tag>")


def test_every_short_text_against_a_naive_reading(tokenizer):
    texts = ("aba", "cb")  # no stop ends with c
    for letters in itertools.product("abc", repeat=6):
        text = "".join(letters)
        ends = [text.find(stop) + len(stop) for stop in texts if stop in text]
        assert kept(tokenizer, texts, text.encode()) == min(ends, default=None)


def test_tokens_that_cannot_end_a_stop_are_told_by_their_text():
    words = {"a": 0, ">": 1, "x>y": 2, "</a": 3, "<0x3E>": 4, "<eos>": 5}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")))
    assert enders(tokenizer, len(tokenizer), ("</a>", "</b>")) == {1, 2, 4, 5}
    assert enders(tokenizer, len(tokenizer), ("</a>", "\n")) is None
    tokenizer.add_tokens("</b>")
    assert 6 in enders(tokenizer, len(tokenizer), ("</a>", "</b>"))


def test_a_stop_far_behind_many_tokens_that_end_none_is_found_where_it_ends(tokenizer):
    before = "é😀".encode() * 40
    assert kept(tokenizer, ("</a>",), before + b"</a>") == len(before) + 4
    assert kept(tokenizer, ("</a>",), b"</a" + before + b">" + before) is None


@pytest.mark.parametrize(("texts", "size"), [(("aba", "bb", "é😀"), 5), (("éa", "b😀a", "aa"), 4)])
def test_a_stop_that_a_request_cuts_ends_in_the_next_one(tokenizer, texts, size):
    """What the thread sampled before counts up to the cut; a stop that ended there does not end again."""
    for letters in itertools.product(["a", "b", "é", "😀"], repeat=size):
        data = "".join(letters).encode()
        ends = [len(data[:place].decode(errors="ignore").encode()) for place in range(len(data) + 1)]
        for cut in range(len(data) + 1):
            stops = StopTexts(tokenizer, texts, list(data[:cut]))
            later = (place for place in range(cut + 1, len(data) + 1) if ends[place] == place)
            expected = next((place for place in later if data[:place].decode().endswith(texts)), None)
            assert stops.kept(list(data[cut:])) == (None if expected is None else expected - cut)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model of bytes on the torch engine, which never ends by itself."""
    folder = tmp_path_factory.mktemp("bytes")
    build_endless("Llama", folder, vocab_size=256)
    byte_tokenizer().save_pretrained(folder)
    house = House(folder, TorchEngine.start(str(folder), device="cpu"))
    yield house
    house.close()


@pytest.mark.parametrize("cut", range(4))
def test_what_a_prompt_quotes_never_stops(writer, cut):
    prompt = list(PRINTABLE + EMOJI[:cut])  # it has every stop that is tried, and ends within an emoji
    options = {"temperature": 1.0, "seed": 3}
    (free,) = writer.all(ask("free", prompt, 200, **options))
    new = [byte for byte in PRINTABLE if byte not in free.ids]
    late = next(byte for place, byte in enumerate(free.ids) if byte in PRINTABLE and free.ids.index(byte) == place > 3)
    pair = next(  # not in the prompt, and over two tokens
        (a, b) for place, (a, b) in enumerate(itertools.pairwise(free.ids)) if place > 8 and {a, b} <= set(PRINTABLE)
    )
    unseen, by_late, by_pair = writer.all(
        ask("unseen", prompt, 200, stop_texts=(*map(chr, new), bytes(PRINTABLE[:20]).decode()), **options),
        ask("late", prompt, 200, stop_texts=(chr(late),), **options),
        ask("pair", prompt, 200, stop_texts=(bytes(pair).decode(),), **options),
    )
    assert new
    assert (unseen.ids, unseen.finish_reason) == (free.ids, "length")
    assert (by_late.ids, by_late.finish_reason) == (free.ids[: free.ids.index(late) + 1], "stop")
    first = bytes(free.ids).index(bytes(pair)) + 1  # the request is cut within the pair
    (by_rest,) = writer.all(
        ask(
            "rest",
            prompt + free.ids[:first],
            200,
            stop_texts=(bytes(pair).decode(),),
            first_draw=first,
            tail=first,
            **options,
        )
    )
    assert (by_rest.ids, by_rest.finish_reason) == (free.ids[first : first + 1], "stop")
    assert (by_pair.ids, by_pair.finish_reason) == (free.ids[: bytes(free.ids).index(bytes(pair)) + 2], "stop")
