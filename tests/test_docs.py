"""docs/dialects.md: every dialect has a section, pictures are what the code draws, and the examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_reason.dialects import BUILT_IN

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "dialects.md").read_text()
PROGRAM = """
import asyncio

from draw_layouts import PatternTokenizer

from parallel_reason import Session
from parallel_reason.dialects import bind, find, grafts, options_of
from parallel_reason.dialects.base import ChildSpec, StartFork, ThreadView
from parallel_reason.engines.scripted import ScriptedEngine
from vote_package.vote import Vote

tokenizer = PatternTokenizer(["<try>", "</try>"])
{examples}
assert find("vote") is Vote
assert not grafts("vote")
assert bind("vote", tokenizer) == vote
assert options_of(vote) == {{}}
print("".join(tokenizer.decode(span.ids) for span in trace.root.spans))
"""


@pytest.mark.parametrize("name", [dialect.name for dialect in BUILT_IN])
def test_every_dialect_has_a_section_and_a_picture(name):
    section = PAGE.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    for part in ("**Forks**", "**A child sees**", "**Joins**", "**Positions**", "Source: ", f"layouts/{name}.svg"):
        assert part in section, part


def test_every_picture_is_shown_and_small():
    shown = set(re.findall(r"\]\((layouts/\S+)\)", PAGE))
    assert shown == {f"layouts/{path.name}" for path in (DOCS / "layouts").iterdir()}
    assert "](graft.svg)" in (DOCS / "graft.md").read_text()
    for path in (*(DOCS / "layouts").iterdir(), DOCS / "graft.svg"):
        assert path.stat().st_size < 60_000
        assert int(re.search(r'<svg[^>]* width="(\d+)"', path.read_text())[1]) <= 800


def test_pictures_are_what_the_code_draws(tmp_path):
    """After a change of a rule: ``python docs/draw_layouts.py``, ``python docs/draw_graft.py``."""
    subprocess.run([sys.executable, DOCS / "draw_layouts.py", tmp_path], check=True)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (DOCS / "layouts").iterdir()}
    subprocess.run([sys.executable, DOCS / "draw_graft.py", tmp_path / "graft.svg"], check=True)
    assert (tmp_path / "graft.svg").read_bytes() == (DOCS / "graft.svg").read_bytes()


def test_the_example_runs_as_another_package(tmp_path):
    """The module of the page is installed with the entry point of the page; its other examples use it."""
    module, *examples = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    (point,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.S | re.M)
    group, _, value = point.partition("\n")
    assert group == '[project.entry-points."parallel_reason.dialects"]'
    (tmp_path / "vote_package").mkdir()
    (tmp_path / "vote_package" / "vote.py").write_text(module)
    (tmp_path / "vote-1.dist-info").mkdir()
    (tmp_path / "vote-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vote\nVersion: 1\n")
    (tmp_path / "vote-1.dist-info" / "entry_points.txt").write_text(
        "[parallel_reason.dialects]\n" + value.replace('"', "").replace("my_package", "vote_package")
    )
    path = [str(tmp_path), str(DOCS)]
    program = f"import sys\nsys.path[:0] = {path}\n" + PROGRAM.format(examples="\n".join(examples))
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "2*3 = so <try> 6</try> done<eos>\n"


def test_links_of_the_page_exist():
    headings = {line.strip("# `\n") for line in PAGE.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (DOCS / target).exists(), target
