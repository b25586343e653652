"""docs/programs.md: every program runs as it stands there, and its traces are exact."""

import re
from pathlib import Path

import pytest

from parallel_reason import ParallelLLM, ProgramThread, ProgramThreads, SamplingParams
from parallel_reason.exactness import BOUND, compare, load_reference
from tests import letters

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "programs.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
NAMES = [re.search(r"llm\.run\((\w+)", block)[1] for block in BLOCKS]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A random model whose tokens are bytes."""
    folder = letters.build("Llama", tmp_path_factory.mktemp("bytes"), vocab_size=256, eos_token_id=255)
    letters.byte_tokenizer().save_pretrained(folder)
    with ParallelLLM(folder, engine="torch", dialect="none", limits={"tokens_per_thread": 120}) as llm:
        yield llm


@pytest.mark.parametrize(("name", "block"), zip(NAMES, BLOCKS, strict=True), ids=NAMES)
def test_every_program_of_the_page_runs(llm, name, block):
    space = {"llm": llm, "prompts": ["Two rivers\nA hill"], "sampling": SamplingParams(seed=1)}
    exec(block.replace("prompts)", "prompts, sampling)"), space)
    [trace] = space["traces"]
    assert (trace.status, trace.errors, trace.dialect) == ("finished", [], f"program:{name}")
    assert trace.answer
    assert len(trace.threads) > 2
    assert compare(load_reference(llm.engine.model), trace).largest < BOUND
    assert llm.kv_is_free()


def test_the_page_names_every_verb():
    table = PAGE.partition("## The language")[2].partition("**What ends a thread.**")[0]
    for kind in (ProgramThread, ProgramThreads):
        for verb in (name for name in vars(kind) if not name.startswith("_")):
            assert re.search(rf"\b{verb}\b", table) or verb in ("answer", "texts"), verb


def test_the_readme_links_the_page():
    assert "(docs/programs.md)" in (ROOT / "README.md").read_text()
