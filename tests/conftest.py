"""Two models on real vLLM, each started once: ``soup``, random weights over a vocabulary so small that control tokens
come up all the time, and ``countdown``, the embedded model, which forks as it was trained to."""

import io
import os
import subprocess
import sys

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def soup_model(tmp_path_factory):
    """A folder with a random Qwen3 whose 30 tokens are the nine control tags, <eos> and single letters."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from parallel_reason import SpawnJoin

    tags = list(SpawnJoin.tags.values())
    words = ["<eos>", *tags, *"abcdefghijklmnopqrst"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}b"
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=False, eos_token_id=0,
        bos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    folder = str(tmp_path_factory.mktemp("soup"))
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def soup(soup_model):
    from parallel_reason import ParallelLLM

    with ParallelLLM(soup_model) as llm:
        yield llm


@pytest.fixture(scope="session")
def countdown():
    from parallel_reason import ParallelLLM

    with ParallelLLM() as llm:
        yield llm


@pytest.fixture(scope="session")
def reference():
    """``reference(llm, trace)``: what plain transformers makes of a trace, under its layout."""
    from parallel_reason.exactness import compare, load_reference

    models = {}

    def scores(llm, trace):
        if llm.engine.model not in models:
            models[llm.engine.model] = load_reference(llm.engine.model)
        return compare(models[llm.engine.model], trace)

    return scores


@pytest.fixture
def command(capfd, monkeypatch):
    """``command(*args)``: the command line, run in this process; see `call` of `tests.commands` for one of its own."""
    from parallel_reason.cli.app import main

    def run(*args, text="", columns=None, stdout=None):
        """Run it to its end.

        ``text`` is standard input, as text or as bytes; ``stdout`` is a file in place of standard output; with
        ``columns`` both outputs count as a terminal.
        """
        data = text if isinstance(text, bytes) else text.encode()
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            if stdout:
                patch.setattr(sys, "stdout", stdout)
            for name, value in {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": columns, "LINES": 40}.items():
                if columns:
                    patch.setenv(name, str(value))
            try:
                main([os.fsdecode(arg) if isinstance(arg, bytes) else str(arg) for arg in args])
                status = 0
            except SystemExit as end:
                status = end.code or 0
        return subprocess.CompletedProcess(args, status, *capfd.readouterr())

    return run


@pytest.fixture
def ignoring_eos(monkeypatch):
    """Servers are asked to go on after the model's own end of text."""
    from parallel_reason.engines.openai import engine as openai

    body = openai.decoding_body

    def without_ends(request, model, eos_ids, draw):
        return body(request, model, draw=draw) | {"ignore_eos": True}

    monkeypatch.setattr(openai, "decoding_body", without_ends)
