"""Trace files: appended whole or not at all, read back, and resumed after a kill, a full disk or other settings."""

import resource
import signal
import subprocess
import sys

import pytest

from parallel_reason import Limits, SamplingParams
from parallel_reason.errors import InputError, TraceFileError
from parallel_reason.trace import Thread, Trace, TraceWriter, read_traces, resume

SETTINGS = {
    "model": "m", "engine": "torch", "dialect": "spawn_join", "dialect_options": {"join_on": "all"},
    "sampling": SamplingParams(temperature=1.0, seed=1), "limits": Limits(tokens=9),
}  # fmt: skip


def made(task, sample=0, status="finished", **fields):
    thread = Thread(label="0", status=status)
    return Trace(**{**SETTINGS, "prompt": "p", "task": task, "sample": sample, "threads": [thread], **fields})


def written(path, *traces):
    with TraceWriter(path) as writer:
        for trace in traces:
            writer.write(trace)


def test_a_file_is_read_line_by_line_and_blank_lines_are_skipped(tmp_path):
    first, second = made("a"), made("b")
    second.prompt = "line\nbreaks\r\u2028\u0085 and ünïcode"
    path = tmp_path / "traces.jsonl"
    path.write_text(f"\n{first.to_json()}\n  \n\n{second.to_json()}", encoding="utf-8")
    assert list(read_traces(path)) == [first, second]


@pytest.mark.parametrize("line", [b"{", b'{"version":3}', b'"\xff\xfe"'])
def test_a_bad_line_is_named_with_its_file_after_the_good_ones_are_read(tmp_path, line):
    path = tmp_path / "traces.jsonl"
    trace = made("a")
    path.write_bytes(trace.to_json().encode() + b"\n\n" + line + b"\n")
    reader, good = read_traces(path), []
    with pytest.raises(TraceFileError) as error:
        good.extend(reader)
    assert good == [trace]
    assert f"{path}, line 3: " in str(error.value)


def test_a_file_that_cannot_be_opened_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        list(read_traces(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="cannot write"):
        TraceWriter("/proc/none/traces.jsonl")


def test_appending_goes_on_after_what_was_there_and_makes_the_folder(tmp_path):
    path = tmp_path / "runs" / "traces.jsonl"
    traces = [made(name) for name in "abc"]
    written(path, traces[0])
    written(path, *traces[1:])
    assert list(read_traces(path)) == traces


@pytest.mark.parametrize("torn", [1, 40, 100_000])
def test_a_torn_last_line_is_dropped_by_who_writes_next(tmp_path, torn):
    path = tmp_path / "traces.jsonl"
    first, second = made("a"), made("b")
    big = made("c", prompt="x" * 200_000).to_json().encode()
    written(path, first)
    path.write_bytes(path.read_bytes() + big[:torn])
    written(path, second)
    assert list(read_traces(path)) == [first, second]


def test_a_line_for_which_there_is_no_room_leaves_the_file_whole(tmp_path):
    """A limit on the size of files stands for a full disk: writes come back short, then fail."""
    path = tmp_path / "traces.jsonl"
    small, big = made("a"), made("b", prompt="x" * 50_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with TraceWriter(path) as writer:
            writer.write(small)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            with pytest.raises(OSError, match="too large"):
                writer.write(big)
            writer.write(small)
            assert writer.written == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(read_traces(path)) == [small, small]


KILLED = """
import sys
from parallel_reason.trace import TraceWriter
from tests.test_jsonl import made
with TraceWriter(sys.argv[1]) as writer:
    for number in range(1 << 30):
        writer.write(made(str(number), prompt="x" * 30_000))
        print(flush=True)
"""


def test_what_a_killed_run_finished_is_kept(tmp_path):
    path = tmp_path / "traces.jsonl"
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    for _ in range(20):
        run.stdout.readline()
    run.kill()
    run.communicate()
    kept = resume(path, **SETTINGS)
    assert len(kept) >= 20
    assert list(kept) == [(str(number), 0) for number in range(len(kept))]


def test_resuming_keeps_what_ended_by_itself_and_drops_the_rest(tmp_path):
    path = tmp_path / "traces.jsonl"
    traces = [made(status, status=status) for status in ("finished", "length", "cancelled", "failed")]
    written(path, *traces, made("finished", 1), made("failed", 1, status="failed"))
    path.write_bytes(path.read_bytes() + b'{"torn')
    kept = resume(path, **SETTINGS)
    assert sorted(kept) == [("finished", 0), ("finished", 1), ("length", 0)]
    assert len(list(read_traces(path))) == 3
    assert resume(tmp_path / "none.jsonl", **SETTINGS) == {}


def test_without_a_task_the_prompt_is_the_key(tmp_path):
    written(tmp_path / "traces.jsonl", made(None, 2, prompt="1+1"))
    assert list(resume(tmp_path / "traces.jsonl", **SETTINGS)) == [("1+1", 2)]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model", "n"),
        ("engine", "vllm"),
        ("dialect", "npr"),
        ("dialect_options", {"join_on": "first"}),
        ("sampling", SamplingParams(temperature=0.5, seed=1)),
        ("limits", Limits(tokens=10)),
    ],
)
def test_a_run_with_other_settings_is_refused_by_name_and_loses_nothing(tmp_path, name, other):
    path = tmp_path / "traces.jsonl"
    written(path, made("a"), made("b", status="failed"))
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"was made with {name}="):
        resume(path, **SETTINGS | {name: other})
    assert path.read_bytes() == before
