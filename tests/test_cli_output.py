"""`generate` when what it writes to is full or gone: the other traces go on, and one line says what was not written."""

import json
import os
import resource
import subprocess
from functools import partial

from parallel_reason import read_traces
from parallel_reason.tasks.countdown import held_out
from tests.commands import COMMAND, TORCH, call, error_line

PROBLEMS = [str(problem) for problem in held_out(12)]
GENERATE = ["generate", *PROBLEMS, *TORCH, "--tokens", "30", "--json"]


def at_most(size):
    """No file that the process writes may grow over ``size`` bytes, as on a full disk."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_stops_no_trace_and_leaves_no_torn_line(command, tmp_path):
    out = tmp_path / "traces.jsonl"
    assert command(*GENERATE, "--out", out).returncode == 0
    size = out.stat().st_size // 2
    out.unlink()
    done = call(*GENERATE, "--out", out, preexec_fn=at_most(size))
    kept = list(read_traces(out))
    assert 0 < len(kept) < len(PROBLEMS)
    lost = len(PROBLEMS) - len(kept)
    assert error_line(done) == f"error: {lost} of 12 traces are not in {out} (File too large); {len(kept)} are"
    assert sorted(json.loads(line)["prompt"] for line in done.stdout.splitlines()) == sorted(PROBLEMS)
    assert command(*GENERATE, "--out", out).returncode == 0
    assert len(list(read_traces(out))) == len(kept) + len(PROBLEMS)


def test_a_torn_last_line_is_dropped(command, tmp_path):
    out = tmp_path / "traces.jsonl"
    out.write_text('{"version": 2, "prom')
    assert command("generate", PROBLEMS[0], *TORCH, "--out", out).returncode == 0
    assert [trace.prompt for trace in read_traces(out)] == PROBLEMS[:1]


def test_a_full_disk_under_standard_output_does_not_stop_the_file(command, tmp_path):
    out = tmp_path / "traces.jsonl"
    for form in (GENERATE, GENERATE[:-1]):
        out.unlink(missing_ok=True)
        with open("/dev/full", "w") as full:
            done = command(*form, "--out", out, stdout=full)
        assert error_line(done) == "error: 12 of 12 traces are not printed (No space left on device); 0 are"
        assert {trace.prompt for trace in read_traces(out)} == set(PROBLEMS)


def test_a_full_disk_under_standard_output_is_one_line_of_any_command(command, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "1"}')
    with open("/dev/full", "w") as full:
        done = command("validate", texts, "--dialect", "spawn_join", stdout=full)
    assert error_line(done) == "error: No space left on device"


def test_a_closed_pipe_ends_quietly_and_cancels_what_nobody_reads():
    command = [*COMMAND, *GENERATE, "--n", "2000", "--children", "2", "--temperature", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = json.loads(process.stdout.readline())
        process.stdout.close()
        try:
            _, errors = process.communicate(timeout=120)  # 24,000 traces would take longer
        finally:
            process.kill()
    status = process.returncode
    assert first["prompt"] in PROBLEMS
    assert status in (1, 141)
    assert "error" not in errors.lower()  # a slow machine's notes of progress are there
    assert "Traceback" not in errors


def test_a_closed_pipe_does_not_stop_the_file(command, tmp_path):
    for form in (GENERATE, ["generate", PROBLEMS[0], *TORCH]):
        out = tmp_path / "traces.jsonl"
        out.unlink(missing_ok=True)
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            done = command(*form, "--out", out, stdout=pipe)
        assert done.returncode == 1
        assert done.stderr == ""
        assert {trace.prompt for trace in read_traces(out)} == set(form) & set(PROBLEMS)
