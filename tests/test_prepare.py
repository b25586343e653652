"""`prepare` against transformers: what was there stays as it was, and a new token begins as the mean of its words."""

import asyncio
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from parallel_reason import ParallelLLM
from parallel_reason.dialects import BUILT_IN, find
from parallel_reason.dialects.tags import Tags
from parallel_reason.engines import start
from parallel_reason.errors import InputError, ModelError
from parallel_reason.prepare import preparation as inside
from parallel_reason.prepare import prepare
from parallel_reason.prepare.rows import INDEX
from parallel_reason.prepared import dialect_of, read_prepared
from tests.commands import call

PIECES = ["<unk>", "<s>", "<end>", "<turn>"]
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}<turn>\n{% endfor %}"
AS_TOKENS = [dialect.name for dialect in BUILT_IN if dialect.name not in inside.WRITTEN_AS_TEXT]


def byte_tokenizer(chat_template=CHAT):
    """Byte-level BPE over a few words, with an end of text, and a chat template whose turns end otherwise."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=PIECES, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(["Path Goal Parallel the capital of France is Paris spawn step plan"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", bos_token="<s>", unk_token="<unk>")
    tokenizer.chat_template = chat_template
    return tokenizer


def build(folder, *, tied=True, rows=None, shard="1GB", dtype=torch.float32, biased=False, tokenizer=None):
    """A random model; with ``biased``, one whose output layer has a bias."""
    tokenizer = tokenizer or byte_tokenizer()
    torch.manual_seed(5)
    sizes = {
        "vocab_size": rows or len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 512, "eos_token_id": 2, "bos_token_id": 1,
        "initializer_range": 0.5,
    }  # fmt: skip
    if biased:
        model = PhiForCausalLM(PhiConfig(**sizes, tie_word_embeddings=False))
        torch.nn.init.normal_(model.lm_head.bias)
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tied))
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return str(folder)


def weights(folder):
    """Every tensor of a folder, by name."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"tied": False}, {"biased": True}, {"rows": 384}, {"tied": False, "shard": "20KB"}], ids=str
)
def test_a_new_token_begins_as_the_mean_of_its_words_and_all_else_stays(tmp_path, options, dtype):
    source = build(tmp_path / "model", dtype=dtype, **options)
    done = prepare(source, "multiverse", tmp_path / "out")
    plain, words = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    ready, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    size = options.get("rows") or len(words) + 12
    assert plain.dtype == ready.dtype == dtype
    assert (done.rows_before, done.rows, ready.config.vocab_size) == (options.get("rows") or len(words), size, size)
    ids = words.encode("the capital of France is Paris <turn>")
    with torch.no_grad():
        before, after = (model(torch.tensor([ids])).logits[0].float() for model in (plain, ready))
    assert torch.equal(before[:, : len(words)], after[:, : len(words)])
    pieces = {"<Path>": ["Path"], "</Path>": ["/", "Path"], "</Goal>": ["/", "Goal"]}
    for tag, names in pieces.items():
        row = tokenizer.convert_tokens_to_ids(tag)
        of_words = [piece for name in names for piece in words.encode(name)]
        assert tokenizer.encode(f"Paris{tag}of") == [*words.encode("Paris"), row, *words.encode("of")]
        for layer in (ready.get_input_embeddings(), ready.get_output_embeddings()):
            assert torch.equal(layer.weight[row], layer.weight[of_words].float().mean(0).to(dtype))
        rounding = 1e-5 if dtype == torch.float32 else 0.2
        torch.testing.assert_close(after[:, row], after[:, of_words].mean(1), rtol=0, atol=rounding)


def test_without_the_added_rows_the_weights_are_the_original_ones(tmp_path):
    for number, options in enumerate([{"tied": False, "shard": "20KB"}, {"rows": 384}]):
        source, out = tmp_path / f"model{number}", tmp_path / f"out{number}"
        build(source, **options)
        prepare(str(source), "npr", out, check=False)
        record, before, after = read_prepared(out), weights(source), weights(out)
        assert record.rows == len(before["model.embed_tokens.weight"])
        unused = {token.id for token in record.added}
        kept = [row for row in range(record.rows) if row not in unused]
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            if len(tensor) == record.rows:
                assert torch.equal(tensor[kept], after[name][kept]), name
            else:
                assert torch.equal(tensor, after[name]), name


def test_shards_stay_and_only_those_with_a_vocabulary_are_written_anew(tmp_path):
    build(tmp_path / "model", tied=False, shard="20KB")
    prepare(str(tmp_path / "model"), "npr", tmp_path / "out")
    before, after = files(tmp_path / "model"), files(tmp_path / "out")
    assert before.keys() == after.keys()
    index, new_index = (json.loads(found[INDEX]) for found in (before, after))
    assert index["weight_map"] == new_index["weight_map"]
    held = {index["weight_map"][name] for name in ("model.embed_tokens.weight", "lm_head.weight")}
    changed = {name for name, data in before.items() if data != after[name]}
    assert held < changed <= {
        *held, INDEX, "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    }  # fmt: skip
    assert len(index["weight_map"].keys()) > len(held)
    assert new_index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights(tmp_path / "out").values())
    assert before["chat_template.jinja"] == after["chat_template.jinja"]


def test_a_tokenizer_with_more_tokens_than_rows_gets_rows_for_all(tmp_path):
    size = len(byte_tokenizer())
    build(tmp_path / "model", rows=size - 3)
    done = prepare(str(tmp_path / "model"), "npr", tmp_path / "out")
    assert (done.rows_before, done.rows) == (size - 3, size + 8)
    before, after = (weights(folder)["model.embed_tokens.weight"] for folder in (tmp_path / "model", tmp_path / "out"))
    for row in range(size - 3, size):
        torch.testing.assert_close(after[row], before.mean(0))


def test_only_the_weights_of_the_model_are_taken(tmp_path):
    """Mistral's folders hold the same weights once more, in a format of their own."""
    for shard in ("20KB", "1GB"):
        source, out = tmp_path / f"model {shard}", tmp_path / f"out {shard}"
        build(source, tied=False, shard=shard)
        shutil.copy(next(source.glob("*.safetensors")), source / "consolidated.safetensors")
        prepare(str(source), "npr", out, check=False)
        assert not (out / "consolidated.safetensors").exists()
        assert (out / "config.json").exists()


@pytest.mark.parametrize("name", ["../secret", "missing.safetensors", "/etc/passwd"])
def test_an_index_that_names_another_file_is_refused(tmp_path, name):
    source = tmp_path / "model"
    build(source, tied=False, shard="20KB")
    index = json.loads((source / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    (source / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names '.*', which is no file in that folder"):
        prepare(str(source), "npr", tmp_path / "out")
    (source / INDEX).write_text("[]")
    with pytest.raises(ModelError, match=r"index\.json of '.*' cannot be read"):
        prepare(str(source), "npr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dialect", AS_TOKENS)
def test_every_dialect_with_tokens_is_prepared_checked_and_recorded(tmp_path, dialect):
    source = build(tmp_path / "model")
    done = prepare(source, dialect, tmp_path / "out")
    assert list(done.tags.added) == list(find(dialect).tags.values())
    assert done.checked.largest < 1e-4
    assert done.checked.tokens > 8
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert list(Tags(find(dialect).tags, tokenizer).ids.values()) == list(done.tags.added.values())
    assert dialect_of(tmp_path / "out")[0] == dialect
    assert dialect_of(source) is None


def test_what_was_prepared_for_one_dialect_can_be_prepared_for_another(tmp_path):
    source = build(tmp_path / "model")
    once = prepare(source, "multiverse", tmp_path / "once", check=False)
    twice = prepare(str(tmp_path / "once"), "threadweaver", tmp_path / "twice", check=False)
    again = prepare(str(tmp_path / "twice"), "threadweaver", tmp_path / "again", check=False)
    shared = {
        "<Think>",
        "</Think>",
        "<Parallel>",
        "</Parallel>",
        "<Outline>",
        "</Outline>",
        "<Conclusion>",
        "</Conclusion>",
    }
    assert set(twice.tags.kept) == shared
    assert {tag: once.tags.added[tag] for tag in shared} == twice.tags.kept
    record = read_prepared(tmp_path / "twice")
    assert [token.token for token in record.added] == [*once.tags.added, *twice.tags.added]
    assert record.rows == once.rows_before
    assert not again.tags.added
    assert weights(tmp_path / "again").keys() == weights(tmp_path / "twice").keys()
    assert files(tmp_path / "again") == files(tmp_path / "twice")


def test_a_tag_that_is_in_the_vocabulary_but_split_becomes_whole_under_its_own_id(tmp_path):
    tokenizer = byte_tokenizer()
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["model"]["vocab"]["<Path>"] = len(tokenizer)  # no merge leads to it
    (tmp_path / "tokenizer.json").write_text(json.dumps(core))
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<end>")
    held = tokenizer.convert_tokens_to_ids("<Path>")
    assert tokenizer.encode("<Path>") != [held]
    source = build(tmp_path / "model", tokenizer=tokenizer)
    done = prepare(source, "multiverse", tmp_path / "out", check=False)
    assert done.tags.kept == {"<Path>": held}
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("<Path>") == [held]
    old, new = (weights(folder)["model.embed_tokens.weight"] for folder in (tmp_path / "model", tmp_path / "out"))
    assert torch.equal(old[held], new[held])


def test_tags_that_models_write_as_text_get_no_tokens(tmp_path):
    source = build(tmp_path / "model")
    with pytest.raises(InputError, match=r"models of dialect 'apr' write its tags as text"):
        prepare(source, "apr", tmp_path / "out")
    as_text = prepare(source, "apr", tmp_path / "apr", tags="text")
    assert weights(tmp_path / "apr").keys() == weights(tmp_path / "model").keys()
    assert (as_text.rows, as_text.tags.added, dialect_of(tmp_path / "apr")[0]) == (as_text.rows_before, {}, "apr")
    prepare(source, "npr", tmp_path / "npr", tags="text", check=False)
    with pytest.raises(InputError, match=r"was prepared for 'npr' with its tags as text"):
        prepare(str(tmp_path / "npr"), "npr", tmp_path / "out")
    with pytest.raises(ModelError, match=r"no token for <spawn>"):
        prepare(source, "spawn_join", tmp_path / "out", tags="text")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "generation", "ends"),
    [
        (CHAT, None, [2, 3]),
        (None, None, 2),
        ("{{ 1/0 }}", None, 2),
        (CHAT, {"eos_token_id": [1, 2], "top_k": 7}, [1, 2, 3]),
    ],
)
def test_the_ends_of_text_are_complete(tmp_path, template, generation, ends):
    source = build(tmp_path / "model", tokenizer=byte_tokenizer(template))
    (tmp_path / "model" / "generation_config.json").unlink()
    if generation:
        (tmp_path / "model" / "generation_config.json").write_text(json.dumps(generation))
    prepare(source, "npr", tmp_path / "out", check=False)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {**(generation or {}), "eos_token_id": ends}
    with ParallelLLM(str(tmp_path / "out"), dialect="npr", engine="torch") as llm:
        assert llm.engine.eos_ids == set(ends if isinstance(ends, list) else [ends])


def test_options_of_the_dialect_are_checked_and_recorded(tmp_path):
    source = build(tmp_path / "model")
    prepare(source, "parathinker", tmp_path / "out", dialect_options={"paths": 3}, check=False)
    assert dialect_of(tmp_path / "out")[1]["paths"] == 3
    with pytest.raises(InputError, match=r"option 'paths'=99"):
        prepare(source, "parathinker", tmp_path / "none", dialect_options={"paths": 99})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("record", ['"multiverse"', '{"dialect": 5, "rows": 3}', '{"dialect": "npr"}', "[]"])
def test_a_record_that_cannot_be_read_is_an_error_of_one_line(tmp_path, record):
    (tmp_path / "config.json").write_text(f'{{"parallel_reason": {record}}}')
    with pytest.raises(ModelError, match=r"config\.json of .*: parallel_reason") as raised:
        dialect_of(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", ["", "[1]", "{}", '"x"'])
def test_a_folder_without_a_record_was_not_prepared(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert dialect_of(tmp_path) is None
    assert dialect_of(tmp_path / "none") is None


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    source = build(tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"full' is there already"):
        prepare(source, "npr", tmp_path / "full")
    for error in (KeyboardInterrupt, ModelError("wrong")):
        monkeypatch.setattr(inside, "verify", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(error if isinstance(error, type) else ModelError):
            prepare(source, "npr", tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    prepare(source, "npr", tmp_path / "empty", check=False)
    assert dialect_of(tmp_path / "empty")


def test_the_check_sees_a_model_that_transformers_runs_otherwise(tmp_path, monkeypatch):
    source, other = build(tmp_path / "model"), build(tmp_path / "other", tied=False)
    prepare(other, "npr", tmp_path / "ready", check=False)
    from parallel_reason import exactness

    load = exactness.load_reference
    monkeypatch.setattr(exactness, "load_reference", lambda _: load(str(tmp_path / "ready")))
    with pytest.raises(ModelError, match=r"the check failed: a log-prob is .* nats off"):
        prepare(source, "npr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_safetensors_are_converted(tmp_path):
    source = tmp_path / "model"
    build(source, dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    prepare(str(source), "npr", tmp_path / "out")
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".jinja", *[".json"] * 4, ".safetensors"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_a_model_of_the_hub_is_taken_from_its_cache(tmp_path, monkeypatch):
    cached = tmp_path / "models--someone--tiny"
    build(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert dialect_of("someone/tiny") is None
    prepare("someone/tiny", "npr", cached / "snapshots" / "def", check=False)
    (cached / "refs" / "main").write_text("def")
    assert dialect_of("someone/tiny")[0] == "npr"
    with pytest.raises(ModelError, match=r"cannot get 'someone/else' from the Hub: .*; give a folder"):
        prepare("someone/else", "npr", tmp_path / "out")
    assert dialect_of("someone/else") is None


def test_the_command_says_what_it_did(tmp_path):
    source = build(tmp_path / "model")
    done = call("prepare", "--model", source, "--dialect", "npr", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    row = len(byte_tokenizer())
    assert lines[0].startswith(f"added <guideline> as token {row}, from the rows of tokens [")
    assert lines[8:11] == [f"embeddings: {row} rows before, {row + 8} now", "ends of text: tokens [2, 3]", lines[10]]
    assert lines[10].startswith("checked: ")
    assert lines[11] == f"written to {tmp_path / 'out'}, for dialect npr"
    again = call("prepare", "--model", source, "--dialect", "npr", "--out", tmp_path / "out")
    assert (again.returncode, again.stderr) == (
        1,
        f"error: '{tmp_path / 'out'}' is there already: give a new folder, or an empty one\n",
    )


def test_what_is_no_model_folder_is_named_with_the_fix(tmp_path):
    build(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / file).unlink()
    (tmp_path / "a.gguf").touch()
    shutil.copy(tmp_path / "model" / "config.json", tmp_path / "config.gguf")
    for engine in ("torch", "vllm"):
        with pytest.raises(
            ModelError, match=r"no tokenizer in '.*': the folder has no tokenizer\.json; copy the files"
        ):
            asyncio.run(start(engine, str(tmp_path / "model")))
        with pytest.raises(ModelError, match=r"is a file, not a model folder; make a folder of a GGUF file with"):
            asyncio.run(start(engine, str(tmp_path / "a.gguf")))
        with pytest.raises(ModelError, match=r"no config\.json; make a folder of a GGUF file with"):
            asyncio.run(start(engine, str(tmp_path)))
    with pytest.raises(InputError, match=r"has 2 GGUF files: give one"):
        prepare(str(tmp_path), "npr", tmp_path / "out")
