"""docs/plans.md: its three examples run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "plans.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
PRINTED = [
    r"First: .+\nLonger: .+\n2 traces, True\n",
    re.escape(
        "Mount Everest: 8849 m, see also $2 | K2: 8611 m, see also $2\n"
        "{'1': 'finished', '2': 'finished', '3': 'failed', '4': 'finished', '5': 'skipped'}\n"
        "needs 3: KeyError: 'Atlantis'\n"
    ),
    re.escape(
        "Everest is higher. after 2 searches at once\n"
        "['BE FORMAL.\\n\\nTRANSLATE: BREAD', 'BE FORMAL.\\n\\nTRANSLATE: SALT']\n"
    ),
]


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_the_page_run(number, tmp_path, capsys):
    (tmp_path / "example.py").write_text(EXAMPLES[number])
    runpy.run_path(str(tmp_path / "example.py"))
    printed = capsys.readouterr().out
    assert re.fullmatch(PRINTED[number], printed), printed


def test_there_are_as_many_examples_as_are_run():
    assert len(EXAMPLES) == len(PRINTED)
