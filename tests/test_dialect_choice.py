"""Choosing a dialect: its tokenizer, its options, and dialects of other packages."""

import pytest

from benchmarks.grammars import tokenizer, tokenizer_of
from parallel_reason.dialects import bind, find, grafts, known
from parallel_reason.errors import InputError, ModelError


def test_a_tokenizer_that_cannot_write_a_tag_is_refused():
    poor = tokenizer([])
    poor.backend_tokenizer.model = type(poor.backend_tokenizer.model)({"<eos>": 0, "a": 1}, unk_token="<eos>")
    with pytest.raises(ModelError, match="cannot write <Think>, neither as a token nor as text: dialect 'multiverse'"):
        bind("multiverse", poor)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", {}, "unknown dialect 'nothing'; there is spawn_join, apr, multiverse, npr, threadweaver, "),
        ("multiverse", {"paths": 2}, "dialect 'multiverse' has no option 'paths'; it has none"),
        ("npr", {"plans": 0}, "dialect 'npr', option 'plans'=0: "),
        ("parathinker", {"join_on": "any"}, "dialect 'parathinker', option 'join_on'='any': "),
        ("spawn_join", {"join": 1}, "dialect 'spawn_join' has no option 'join'; it has prefix, join_on"),
        ("parallel_r1", {"words": 1}, "dialect 'parallel_r1' has no option 'words'; it has paths, view, positions"),
        ("parathinker", {"paths": 9}, "dialect 'parathinker', option 'paths'=9: "),
        ("parallel_r1", {"view": "half"}, "dialect 'parallel_r1', option 'view'='half': "),
    ],
)
def test_an_unusable_choice_is_refused_in_one_line(name, options, message):
    with pytest.raises(InputError) as error:
        bind(name, tokenizer([]) if name != "spawn_join" else tokenizer_of([name]), **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_dialect_of_another_package_is_found_and_a_broken_one_is_named(tmp_path, monkeypatch):
    info = tmp_path / "guests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
    points = {"guest": "guests_of_ours:Guest", "lost": "no_such_module:Lost", "npr": "guests_of_ours:Guest"}
    lines = ["[parallel_reason.dialects]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    source = "from parallel_reason.dialects.npr import Npr\n\n\nclass Guest(Npr):\n    name = 'guest'\n"
    (tmp_path / "guests_of_ours.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    known.cache_clear()
    try:
        assert bind("guest", tokenizer([])).name == "guest"
        assert grafts("guest")  # known before it is bound
        assert find("npr").__name__ == "Npr"  # ours is never replaced
        with pytest.raises(InputError, match=r"^dialect 'lost' of guests cannot be loaded: No module named"):
            find("lost")
    finally:
        known.cache_clear()
