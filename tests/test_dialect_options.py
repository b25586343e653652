"""Options of a dialect, as a trace records them; and dialects of other packages that are no dataclasses."""

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from parallel_reason.dialects import bind, known, options_of
from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown.vocabulary import tokenizer


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Foreign:
    """A dialect of another package, with options that JSON does not know."""

    name: ClassVar[str] = "foreign"
    vocabulary: object
    sizes: tuple[int, ...] = (1, 2)
    colour: Colour = Colour.RED
    path: Path = Path("a/b")
    more: dict[int, str] = field(default_factory=lambda: {1: "x"})
    anything: object = None
    computed: int = field(default=3, init=False)

    @classmethod
    def bind(cls, tokenizer, **options):
        return cls(tokenizer, **options)


class Plain:
    """A dialect of another package that is no dataclass."""

    name = "plain"
    paths = 3

    @classmethod
    def bind(cls, tokenizer):
        return cls()


@pytest.fixture
def others(monkeypatch):
    monkeypatch.setitem(known(), "foreign", Foreign)
    monkeypatch.setitem(known(), "plain", Plain)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("spawn_join", {}, {"prefix": "shared", "join_on": "all"}),
        ("spawn_join", {"join_on": "first"}, {"prefix": "shared", "join_on": "first"}),
        ("parallel_r1", {}, {"paths": 2, "view": "unseen", "positions": "plain"}),
        ("parallel_r1", {"paths": 3, "view": "seen"}, {"paths": 3, "view": "seen", "positions": "plain"}),
        ("parathinker", {}, {"paths": 8, "join_on": "all", "opening": False, "any_end": False}),
        ("npr", {}, {"plans": 5}),
        ("multiverse", {}, {}),
        ("plain", {}, {}),
        ("foreign", {}, {"sizes": [1, 2], "colour": "red", "path": "a/b", "more": {"1": "x"}, "anything": None}),
    ],
)
@pytest.mark.usefixtures("others")
def test_all_options_are_recorded_with_their_values_and_survive_json(name, given, wanted):
    words = Letters() if name in ("parallel_r1", "parathinker", "multiverse", "npr") else tokenizer()
    options = options_of(bind(name, words, **given))
    assert options == wanted
    assert json.loads(json.dumps(options)) == options


@pytest.mark.usefixtures("others")
def test_an_option_of_any_type_is_recorded():
    options = options_of(bind("foreign", tokenizer(), anything=object))
    assert options["anything"] == str(object)


@pytest.mark.parametrize(("name", "option"), [("plain", "paths"), ("foreign", "computed"), ("foreign", "vocabulary")])
@pytest.mark.usefixtures("others")
def test_what_is_not_recorded_cannot_be_given(name, option):
    with pytest.raises(InputError, match=f"dialect '{name}' has no option '{option}'; it has "):
        bind(name, tokenizer(), **{option: 1})


class Letters:
    """A tokenizer with one token for each character."""

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) for letter in text]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(map(chr, ids))
