"""`generate`: prompts from everywhere, traces to everywhere."""

import json
import os
import signal
import subprocess
import time
from functools import partial

import pytest

from parallel_reason import read_traces
from parallel_reason.tasks.countdown import held_out
from tests.commands import COMMAND, PROBLEM, TORCH, call, call_on_terminal
from tests.test_cli import error_line

PROBLEMS = [str(problem) for problem in held_out(40)]


def test_prompts_from_a_pipe_give_json_lines_and_a_file(tmp_path):
    out = tmp_path / "made" / "traces.jsonl"
    done = call("generate", "--json", "--tokens", "30", "--out", out, *TORCH, text="\n".join(PROBLEMS[:3]) + "\n")
    assert done.returncode == 0, done.stderr
    assert out.read_text() == done.stdout
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(trace["prompt_index"], trace["prompt"]) for trace in printed} == set(enumerate(PROBLEMS[:3]))


def test_prompts_are_split_at_line_feeds_and_carriage_returns_alone(tmp_path):
    prompts = ["1,2=3\u2028", "1,3=4\x0c", "1,4=5\x0b\u2029", "\x851,5=6"]
    file = tmp_path / "prompts.txt"
    file.write_bytes(("\ufeff" + "\r\n".join(prompts[:2]) + "\r" + "\n\n".join(prompts[2:])).encode())
    for source in (["--file", file], []):
        done = call("generate", *source, *TORCH, "--json", "--tokens", "5", text=b"" if source else file.read_bytes())
        traces = sorted((json.loads(line) for line in done.stdout.split("\n")[:-1]), key=lambda t: t["prompt_index"])
        assert [trace["prompt"] for trace in traces] == prompts, done.stderr


def test_a_file_or_pipe_that_is_not_utf_8_is_one_line(tmp_path):
    file = tmp_path / "latin-1"
    file.write_bytes(b"1,2=3\r\ncaf\xe9")
    for done in (call("generate", "--file", file), call("generate", text=file.read_bytes())):
        assert error_line(done).endswith(": not UTF-8, byte 0xe9 in line 2")


def test_traces_say_which_prompt_and_sample_they_are(tmp_path):
    out = tmp_path / "traces.jsonl"
    args = ["generate", *PROBLEMS[:2], *TORCH, "--n", "2", "--temperature", "1", "--tokens", "40"]
    done = call(*args, "--out", out)
    assert done.returncode == 0, done.stderr
    wanted = {(prompt, sample) for prompt in (0, 1) for sample in (0, 1)}
    traces = list(read_traces(out))
    assert {(trace.prompt_index, trace.sample) for trace in traces} == wanted
    assert all(trace.prompt == PROBLEMS[trace.prompt_index] for trace in traces)
    summaries = [line for line in done.stdout.splitlines() if "critical path" in line]
    assert {line.partition("  ")[0] for line in summaries} == {f"{prompt}.{sample}" for prompt, sample in wanted}


def test_text_is_one_line_a_thread_and_one_for_the_trace():
    done = call("generate", PROBLEM, *TORCH)
    assert done.returncode == 0, done.stderr
    *threads, last = done.stdout.splitlines()
    assert threads[0].startswith("0 [finished: ")
    assert threads[1].startswith("  0.0 [finished: ")
    assert last.startswith(f"{PROBLEM}  ")
    assert f" in {len(threads)} threads" in last


def test_a_trace_that_failed_is_status_1_and_the_others_are_printed():
    done = call("generate", "1,2=3", PROBLEM, *TORCH, "-e", "kv_tokens=30", "--threads", "1", "--json")
    assert done.stdout.count("\n") == 2
    assert "of 2 traces failed, the first because: " in error_line(done)


def test_on_a_terminal_threads_are_drawn_and_no_title_is_taken_for_markup(tmp_path):
    model = tmp_path / "[b]" / "m"
    status, shown, _ = call_on_terminal("generate", PROBLEM, *TORCH)
    assert status == 0
    assert "critical path" in shown
    assert "○" in shown
    status, shown, _ = call_on_terminal("generate", PROBLEM, *TORCH, "--model", model, stream="stderr")
    assert status == 1
    assert f"loading {model}" in shown
    assert f"no model '{model}'" in shown


def test_json_goes_to_a_pipe_while_the_progress_bar_is_on_the_terminal():
    status, shown, piped = call_on_terminal(
        "generate", *PROBLEMS[:3], *TORCH, "--tokens", "30", "--json", stream="stderr"
    )
    assert status == 0
    assert "3/3" in shown
    assert {json.loads(line)["prompt"] for line in piped.splitlines()} == set(PROBLEMS[:3])
    assert '"prompt"' not in shown


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_ctrl_c_keeps_what_was_finished(tmp_path, engine):
    out = tmp_path / "traces.jsonl"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROBLEMS))
    command = [*COMMAND, "generate", "--file", prompts, "--n", "50", "--children", "1", "--json", "--out", out]
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(
            [*map(str, command), "--engine", engine],
            stdout=printed, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )  # fmt: skip
    deadline = time.time() + 240
    while time.time() < deadline and not (out.exists() and out.read_text().count("\n") >= 5):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped; what was finished is kept"
    assert "Traceback" not in errors
    kept = list(read_traces(out))
    assert 5 <= len(kept) < len(PROBLEMS) * 50
    assert [json.loads(line)["prompt"] for line in (tmp_path / "printed").open()] == [trace.prompt for trace in kept]
