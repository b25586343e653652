"""inspect-ai over our threads: found by its entry point, each thread a span of its log. Skipped without inspect-ai."""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import generate

from parallel_reason import InputError, read_traces
from parallel_reason.integrations.inspect import ParallelReasonAPI, sampling_of_config
from parallel_reason.tasks.countdown import Problem, held_out, solves

*PROBLEMS, OTHER = [str(problem) for problem in held_out(4)]


@scorer(metrics=[accuracy()])
def strict():
    async def score(state, target):
        return Score(value=solves(state.output.completion, Problem.parse(state.input_text)))

    return score


@pytest.fixture(scope="module")
def traces_file(tmp_path_factory):
    return tmp_path_factory.mktemp("inspect") / "traces.jsonl"


@pytest.fixture(scope="module")
def model(traces_file):
    """The provider as inspect makes it; `ParallelReasonAPI` registers itself when it is imported."""
    found = get_model("parallel_reason/embedded", engine="torch", threads=4, traces=str(traces_file))
    assert isinstance(found.api, ParallelReasonAPI)
    yield found
    found.api.close()


@pytest.fixture(scope="module")
def log(model, tmp_path_factory):
    task = Task(dataset=[Sample(problem) for problem in PROBLEMS], solver=generate(), scorer=strict())
    folder = str(tmp_path_factory.mktemp("logs"))
    [written] = eval(task, model=model, log_dir=folder, display="none", max_tokens=600)
    assert written.status == "success", written.error
    return read_eval_log(written.location)


@pytest.fixture(scope="module")
def traces(log, traces_file):
    return {trace.prompt: trace for trace in read_traces(traces_file)}


def test_their_task_is_answered_and_scored_by_the_same_verifier(log, traces):
    right = [solves(traces[problem].answer, Problem.parse(problem)) for problem in PROBLEMS]
    assert log.results.scores[0].metrics["accuracy"].value == sum(right) / len(right)
    for sample in log.samples:
        trace = traces[sample.input]
        assert sample.output.completion == trace.answer
        assert sample.output.usage.output_tokens == trace.ledger.sampled_tokens
        [counted] = sample.output.metadata["traces"]
        assert counted["critical_path_tokens"] == trace.ledger.critical_path_tokens
        assert trace.limits.threads == 4
        assert trace.sampling.max_tokens == 600


def test_each_thread_is_a_span_within_that_of_its_parent_and_as_long_as_it_ran(log, traces):
    for sample in log.samples:
        trace = traces[sample.input]
        begun = {event.name: event for event in sample.events if event.event == "span_begin" and event.type == "thread"}
        ended = {event.id: event for event in sample.events if event.event == "span_end"}
        assert set(begun) == {f"thread {thread.label}" for thread in trace.threads}
        assert len(begun) > 1
        for thread in trace.threads[1:]:
            parent = begun[f"thread {trace.threads[thread.parent].label}"]
            child = begun[f"thread {thread.label}"]
            assert child.parent_id == parent.id
            assert parent.timestamp <= child.timestamp <= ended[child.id].timestamp <= ended[parent.id].timestamp
        notes = {
            event.span_id: event.data for event in sample.events if event.event == "info" and "status" in event.data
        }
        for thread in trace.threads:
            note = notes[begun[f"thread {thread.label}"].id]
            sampled = sum(len(span.ids) for span in thread.spans if span.origin == "sampled")
            assert note["sampled_tokens"] == sampled
            assert (note["status"], note["stop_reason"]) == (thread.status, thread.stop_reason)


def test_several_choices_are_several_traces_of_seeds_in_a_row(model, traces_file):
    config = GenerateConfig(num_choices=2, temperature=1.0, seed=5, max_tokens=40)
    output = asyncio.run(model.generate(OTHER, config=config))
    assert len(output.choices) == len(output.metadata["traces"]) == 2
    written = {trace.id: trace for trace in read_traces(traces_file) if trace.prompt == OTHER}
    assert set(written) == {trace["id"] for trace in output.metadata["traces"]}
    assert sorted(trace.sampling.seed for trace in written.values()) == [5, 6]


def test_settings_of_inspect_become_ours_or_are_refused_by_name():
    sampling = sampling_of_config(
        GenerateConfig(temperature=0.5, stop_seqs=["x"], max_tokens=7, max_connections=3, seed=1)
    )
    assert (sampling.temperature, sampling.max_tokens, sampling.seed, sampling.stop) == (0.5, 7, 1, ("x",))
    assert sampling.of("0.0").stop == ()
    with pytest.raises(InputError, match="reasoning_tokens=9 has no meaning for parallel_reason"):
        sampling_of_config(GenerateConfig(reasoning_tokens=9))


def test_more_messages_than_a_model_without_a_chat_template_takes_are_refused(model):
    messages = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=PROBLEMS[0])]
    with pytest.raises(InputError, match="takes one message of the user, not 2"):
        asyncio.run(model.api.generate(messages, [], "none", GenerateConfig()))


def test_their_command_finds_the_provider_by_its_entry_point(tmp_path):
    """The entry point of pyproject.toml is installed beside inspect, and nothing imports the provider but inspect."""
    root = Path(__file__).parents[1]
    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["inspect_ai"]
    (tmp_path / "points-1.dist-info").mkdir()
    (tmp_path / "points-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: points\nVersion: 1\n")
    written = "".join(f"{name} = {value}\n" for name, value in points.items())
    (tmp_path / "points-1.dist-info" / "entry_points.txt").write_text(f"[inspect_ai]\n{written}")
    (tmp_path / "countdown.py").write_text(
        "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\n"
        "from inspect_ai.solver import generate\n"
        f"@task\ndef countdown():\n    return Task(dataset=[Sample({PROBLEMS[0]!r})], solver=generate())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(root), *filter(None, sys.path)])
    command = [sys.executable, "-m", "inspect_ai", "eval", "countdown.py", "--model", "parallel_reason/embedded"]
    command += [
        "-M",
        "engine=torch",
        "-M",
        "depth=0",
        "--display",
        "plain",
        "--log-dir",
        "logs",
        "--log-format",
        "json",
    ]
    ran = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [file] = (tmp_path / "logs").glob("*.json")
    [sample] = json.loads(file.read_text())["samples"]
    assert sample["output"]["metadata"]["traces"][0]["threads"] == 1  # depth=0 was a limit of ours
