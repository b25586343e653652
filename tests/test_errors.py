import pytest
from pydantic import TypeAdapter, ValidationError

from parallel_reason.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one"), "one"),
        (OSError("\none\ntwo\n"), "one"),
        (KeyError(), "KeyError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_an_error_is_one_line_and_never_none(error, said):
    assert first_line(error) == said


def test_of_several_things_that_pydantic_found_the_first_is_said():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(tuple[int, int]).validate_python(("a", "b"))
    assert first_line(error.value) == "Input should be a valid integer, unable to parse string as an integer"
