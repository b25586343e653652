"""Runs of `rl.rewrite` that are killed, refused, or go on with another server."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from parallel_reason import InputError, flatten
from rl.rewrite import main, rewrite
from tests.rewriting import SAMPLE, Teacher, build_model, config, good, kept, rejected, runner, stage_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, model):
    return runner(tmp_path, model)


def others(count):
    return [SAMPLE | {"id": f"s{number}", "problem": f"{SAMPLE['problem']} ({number})"} for number in range(count)]


def outcome(folder):
    return sorted((trace.task, flatten(trace)) for trace in kept(folder)), sorted(map(str, rejected(folder)))


def some_fail(prompt):
    return "none" if "(1)" in prompt and stage_of(prompt) == "groups" else good(prompt)


def test_whatever_was_left_of_the_replies_a_run_comes_to_the_same_and_asks_only_the_rest(run, tmp_path):
    run(some_fail, *others(2))
    whole, file = outcome(tmp_path), tmp_path / "run" / "replies.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for left in range(len(lines) + 1):
        torn = b"" if left == len(lines) else lines[left][: 1 + 37 * left % len(lines[left])]
        file.write_bytes(b"".join(lines[:left]) + torn.removesuffix(b"\n"))
        summary, server = run(some_fail, *others(2))
        assert outcome(tmp_path) == whole
        assert len(server.prompts) == len(lines) - left
        assert summary["usage"]["requests"] == len(lines)


def written(job, folder):
    """The configuration as a file."""
    file = folder / "job.toml"
    values = json.loads(job.model_dump_json(include={"out", "source", "train_model", "engine", "grading"}))
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["[engine_options]", *(f"{key} = {json.dumps(value)}" for key, value in job.engine_options.items())]
    file.write_text("\n".join([*lines, "[limits]", "tokens_per_thread = 2000"]))
    return file


def test_a_run_that_is_killed_goes_on(tmp_path, model, capsys):
    def hangs(prompt):
        return None if stage_of(prompt) == "multiverse_passages" else some_fail(prompt)

    replies = tmp_path / "run" / "replies.jsonl"
    with Teacher(hangs) as server:
        job = config(tmp_path, model, server.url, *others(3))
        command = [sys.executable, "-m", "rl.rewrite", str(written(job, tmp_path))]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True)
        assert server.hung.wait(120), process.communicate(timeout=5)
        until = time.monotonic() + 60
        while replies.read_bytes().count(b"\n") < 4 and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(InputError, match="another run writes"):
            asyncio.run(rewrite(job))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        asked = set(server.prompts)
    before = replies.read_bytes().count(b"\n")
    assert before >= 4
    with Teacher(some_fail) as server:
        main(written(config(tmp_path, model, server.url, *others(3)), tmp_path))
        again = [prompt for prompt in server.prompts if prompt in asked]
    said = capsys.readouterr().out
    assert "kept 2 traces in" in said
    assert "     1 rejected: has nothing to run in parallel" in said
    assert len(again) <= 3 * 2  # those that hung, or whose replies had not come
    assert {trace.task for trace in kept(tmp_path)} == {"s0", "s2"}


def test_samples_on_which_the_server_failed_are_done_by_the_next_run(run, tmp_path, model):
    def broken(prompt):
        return 400 if "(1)" in prompt and stage_of(prompt) == "groups" else good(prompt)

    summary, _ = run(broken, *others(2))
    assert (summary["kept"], summary["rejected"]) == (1, {})
    assert sum(summary["unfinished"].values()) == 1
    assert "answers 400" in next(iter(summary["unfinished"]))
    summary, server = run(good, *others(2))
    assert (summary["kept"], summary["unfinished"]) == (2, {})
    assert all("(1)" in prompt for prompt in server.prompts)


def test_another_configuration_or_a_broken_file_is_refused(run, tmp_path):
    run()
    with pytest.raises(InputError, match="max_distance was"):
        run(max_distance=0.2)
    with (tmp_path / "run" / "replies.jsonl").open("ab") as file:
        file.write(b"{}\n")
    for _ in range(2):  # the lock of the first is gone
        with pytest.raises(InputError, match=r"replies.jsonl, line 7: Field required"):
            run()
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "source.jsonl, line 2: Expecting property name"),
        ("[1]", "line 2: give texts under 'problem' and 'reasoning'"),
        ('{"problem": "a", "reasoning": " "}', "line 2: give texts under"),
        ('{"problem": "a", "reasoning": "\\ud800"}', "line 2: give texts under"),
        ('{"problem": "a", "reasoning": "b", "answer": []}', "line 2: the answer is"),
        ('{"problem": "a", "reasoning": "b", "answer": "\\udfff"}', "line 2: the answer is"),
        ('{"problem": "a", "reasoning": "b", "id": "\\udfff"}', "line 2: the id is"),
        ('{"problem": "a", "reasoning": "b", "id": "a"}', "line 2: an earlier line has the id 'a' too"),
        ('{"problem": "a", "reasoning": "b", "answer": "x"}', "has the answer 'x'; use grading = \"math\""),
        ("[" * 100_000, "line 2: "),
    ],
)
def test_a_line_that_is_no_sample_is_named_before_anything_is_asked(tmp_path, model, line, says):
    with Teacher() as server:
        job = config(tmp_path, model, server.url)
        with (tmp_path / "source.jsonl").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(InputError, match=says) as refused:
            asyncio.run(rewrite(job))
        assert "\n" not in str(refused.value)
        assert server.prompts == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_model": "/no/model"}, "train_model '/no/model'"),
        ({"prompt": "npr"}, "'npr' is for dialect 'npr', not 'multiverse'"),
        ({"source": "/no/file"}, "/no/file: No such file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(tmp_path, model, changes, says):
    with Teacher() as server, pytest.raises(InputError, match=says) as refused:
        asyncio.run(rewrite(config(tmp_path, model, server.url, **changes)))
    assert "\n" not in str(refused.value)


def test_a_model_of_another_dialect_or_without_a_chat_template_is_refused(tmp_path, model):
    folder = shutil.copytree(model, tmp_path / "model")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"parallel_reason": {"dialect": "npr", "rows": 257}}))
    with Teacher() as server:
        with pytest.raises(InputError, match="was prepared for 'npr'; the pipeline is 'multiverse'"):
            asyncio.run(rewrite(config(tmp_path, str(folder), server.url)))
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "chat_template.jinja").unlink()
        for changes, says in (
            ({}, "train_model .* has no chat template"),
            (
                {"train_model": model, "engine_options": {"base_url": server.url, "tokenizer": str(folder)}},
                "model 'fake'",
            ),
        ):
            with pytest.raises(InputError, match=says):
                asyncio.run(rewrite(config(tmp_path, str(folder), server.url, **changes)))


def test_attempts_that_would_all_be_alike_are_refused(tmp_path, model):
    with pytest.raises(ValueError, match="at temperature 0 are all alike; give attempts=1"):
        config(tmp_path, model, "http://x", sampling={"temperature": 0})
