"""`generate`: prompts from everywhere, traces to everywhere."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from parallel_reason import read_traces
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.tasks.countdown import held_out
from tests.commands import COMMAND, PROBLEM, TORCH, call_on_terminal, error_line

PROBLEMS = [str(problem) for problem in held_out(40)]


def test_prompts_from_a_pipe_give_json_lines_and_a_file(command, tmp_path):
    out = tmp_path / "made" / "traces.jsonl"
    piped = "\n".join(PROBLEMS[:3]) + "\n"
    done = command("generate", "--lines", "--json", "--tokens", "30", "--out", out, *TORCH, text=piped)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == done.stdout
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(trace["prompt_index"], trace["prompt"]) for trace in printed} == set(enumerate(PROBLEMS[:3]))


def test_a_file_or_pipe_that_is_not_utf_8_is_one_line(command, tmp_path):
    file = tmp_path / "latin-1"
    file.write_bytes(b"1,2=3\r\ncaf\xe9")
    for done in (command("generate", "--file", file), command("generate", text=file.read_bytes())):
        assert error_line(done).endswith(": not UTF-8, byte 0xe9 in line 2")


def test_traces_say_which_prompt_and_sample_they_are(command, tmp_path):
    out, prompts = tmp_path / "traces.jsonl", tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": f"p{k}", "prompt": text}) for k, text in enumerate(PROBLEMS[:2])))
    args = ["generate", "--file", prompts, *TORCH, "--n", "2", "--temperature", "1", "--tokens", "40"]
    done = command(*args, "--out", out)
    assert done.returncode == 0, done.stderr
    wanted = {(prompt, sample) for prompt in (0, 1) for sample in (0, 1)}
    traces = list(read_traces(out))
    assert {(trace.prompt_index, trace.sample) for trace in traces} == wanted
    assert all(trace.prompt == PROBLEMS[trace.prompt_index] for trace in traces)
    assert all(trace.task == f"p{trace.prompt_index}" for trace in traces)
    summaries = [line for line in done.stdout.splitlines() if "critical path" in line]
    assert {line.partition("  ")[0] for line in summaries} == {f"{prompt}.{sample}" for prompt, sample in wanted}


def test_text_is_one_line_a_thread_and_one_for_the_trace(command):
    done = command("generate", PROBLEM.replace(",", ", "), *TORCH)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *threads, last = done.stdout.splitlines()
    assert threads[0].startswith("  0.")
    assert threads[-1].startswith("0 [finished: ")
    assert last.startswith(f"{PROBLEM.replace(',', ', ')}  ")
    assert f" in {len(threads)} threads" in last
    assert "(right; " in last


def test_a_chat_and_its_reply_that_was_started_go_through_the_models_template(command, soup_model):
    args = ["generate", "ab", "--model", soup_model, *TORCH, "--max-tokens", "5", "--json"]
    user = {"role": "user", "content": "ab"}
    for flags, messages, prompt in (
        (["--chat"], [user], "abb"),
        (["--system", "cd"], [{"role": "system", "content": "cd"}, user], "cdabb"),
        (["--continue", "ef"], [user, {"role": "assistant", "content": "ef"}], "abef"),
    ):
        done = command(*args, *flags)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        trace = json.loads(done.stdout)
        assert (trace["messages"], trace["prompt"]) == (messages, prompt)
    done = command(*args)
    assert json.loads(done.stdout)["messages"] is None
    assert done.stderr.startswith(f"note: {soup_model} has a chat template")
    assert done.stderr.count("\n") == 1


def test_a_transcript_is_what_the_trace_says(command, tmp_path):
    out = tmp_path / "traces.jsonl"
    done = command("generate", PROBLEM, *TORCH, "--tokens", "200", "--transcript", "--out", out)
    assert done.returncode == 0, done.stderr
    (trace,) = read_traces(out)
    said = trace.transcript(load_tokenizer(str(EMBEDDED), "")).rstrip("\n")
    assert done.stdout.startswith(f"{said}\n{PROBLEM}  ")


def test_the_embedded_model_is_not_believed(command):
    done = command("generate", "1,2,3=6", *TORCH, "--tokens", "60")
    assert done.returncode == 0
    assert done.stderr == "note: the embedded model learned problems of 4 numbers; 1,2,3=6 has 3\n"
    assert "(right" not in done.stdout


def test_a_trace_that_failed_is_status_1_and_the_others_are_printed(command):
    done = command("generate", "1,2=3", PROBLEM, *TORCH, "-e", "kv_tokens=30", "--threads", "1", "--json")
    assert done.stdout.count("\n") == 2
    assert "of 2 traces failed, the first because: " in done.stderr


def test_on_a_terminal_threads_are_drawn_in_its_width(command):
    done = command("generate", PROBLEM, *TORCH, columns=80)
    assert done.returncode == 0, done.stderr
    tree, _, rest = done.stdout.rpartition("○")
    assert "22,26,31,53=27" in tree
    assert "0.42" not in tree
    assert "critical path" in rest


def test_a_spinner_names_the_model_and_takes_nothing_for_markup(tmp_path):
    model = tmp_path / "[b]" / "m"
    status, shown, _ = call_on_terminal("generate", PROBLEM, *TORCH, "--model", model, stream="stderr")
    assert status == 1
    assert f"no model '{model}'" in shown.replace("\r\n", "")


def test_json_goes_to_a_pipe_while_the_progress_bar_is_on_the_terminal():
    status, shown, piped = call_on_terminal(
        "generate", *PROBLEMS[:3], *TORCH, "--tokens", "30", "--json", stream="stderr"
    )
    assert status == 0
    assert "loading the embedded Countdown model on torch" in shown
    assert "3/3" in shown
    assert {json.loads(line)["prompt"] for line in piped.splitlines()} == set(PROBLEMS[:3])
    assert '"prompt"' not in shown


def heed_ctrl_c():
    """What a job in the background does not; with bounded memory, which all the samples at once would exceed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (16 << 30, 16 << 30))


def processes(session):
    """Of a session, but for those that have ended."""
    lines = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True).stdout
    return [line.split()[0] for line in lines.splitlines() if "Z" not in line.split()[1]]


def wait_until(true):
    deadline = time.time() + 240
    while not true() and time.time() < deadline:
        time.sleep(0.1)
    assert true()


@pytest.mark.parametrize("started", [1, 3])  # no other process yet; vLLM's, and the tracker of its resources
def test_ctrl_c_while_vllm_loads_leaves_no_process(started):
    process = subprocess.Popen(
        [*COMMAND, "generate", PROBLEM], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    wait_until(
        lambda: len(processes(process.pid)) >= started and "torch" in Path(f"/proc/{process.pid}/maps").read_text()
    )
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "stopped; what was finished is kept\n")
    wait_until(lambda: not processes(process.pid))


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_ctrl_c_keeps_what_was_finished(tmp_path, engine):
    out = tmp_path / "traces.jsonl"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROBLEMS))
    command = [
        *COMMAND,
        "generate",
        "--file",
        prompts,
        "--lines",
        "--n",
        "50",
        "--children",
        "1",
        "--json",
        "--out",
        out,
    ]
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(
            [*map(str, command), "--engine", engine], stdout=printed, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip
    wait_until(lambda: out.exists() and out.read_text().count("\n") >= 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped; what was finished is kept"
    assert "Traceback" not in errors
    kept = list(read_traces(out))
    assert len(kept) >= 5
    assert [json.loads(line)["prompt"] for line in (tmp_path / "printed").open()] == [trace.prompt for trace in kept]
