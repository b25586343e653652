import asyncio

import pytest

from parallel_reason.engines import EMBEDDED, start
from parallel_reason.engines.models import check_model, load_tokenizer
from parallel_reason.errors import InputError, ModelError


@pytest.mark.parametrize("path", ["/no/model", "./model", "~/no/model", "~nobody-at-all/model", "model", "a/b/c"])
def test_a_path_where_nothing_lies_is_no_model(path):
    with pytest.raises(ModelError, match=f"^no model '{path}': give a folder"):
        check_model(path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"^no model in '.*': the folder has no config\.json$"):
        check_model(str(tmp_path))


def test_a_folder_with_one_and_a_hub_id_pass():
    check_model(str(EMBEDDED))
    check_model("Qwen/Qwen3-8B")


def test_a_tokenizer_is_loaded_or_the_error_says_what_to_do(tmp_path):
    assert load_tokenizer(str(EMBEDDED), "").decode([0])
    with pytest.raises(
        ModelError, match=r"^no tokenizer in '.*': the folder has no tokenizer\.json; give another one$"
    ):
        load_tokenizer(str(tmp_path), "give another one")


def test_an_engine_is_started_by_name_with_the_embedded_model():
    async def started():
        engine = await start("torch", context=100)
        await engine.close()
        return engine

    engine = asyncio.run(started())
    assert (engine.name, engine.model, engine.context) == ("torch", str(EMBEDDED), 100)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sglang", {}, "unknown engine 'sglang'; there is vllm, torch, openai"),
        ("torch", {"graft": True}, "engine 'torch': got an unexpected keyword argument 'graft'"),
        ("torch", {"kv_tokens": "abc"}, "engine 'torch', option kv_tokens='abc': Input should be a valid integer"),
        ("vllm", {"compile": "maybe"}, "engine 'vllm', option compile='maybe': Input should be a valid boolean"),
        ("openai", {"base_url": 5}, "engine 'openai', option base_url=5: Input should be a valid string"),
    ],
)
def test_an_unknown_engine_or_option_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        asyncio.run(start(name, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float99"}, "unknown dtype 'float99'"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used"),
        ({"context": 0}, "context must be at least 1, not 0"),
        ({"kv_tokens": 0}, "kv_tokens must be at least 1, not 0"),
    ],
)
def test_the_torch_engine_refuses_values_it_cannot_use(options, message):
    with pytest.raises(InputError, match=message):
        asyncio.run(start("torch", **options))


def test_the_torch_engine_refuses_a_folder_without_a_model(tmp_path):
    for folder, message in ((tmp_path, "no config.json"), (tmp_path / "none", "no model")):
        with pytest.raises(ModelError, match=message):
            asyncio.run(start("torch", str(folder)))
