"""`rl.rewrite` over the openai engine: from a file of solutions to traces that train, through bad replies."""

import json

import pytest

from parallel_reason import ParallelLLM, read_traces
from rl.sft import train
from rl.sft_config import SftConfig
from tests.rewriting import EDITED, LINES, REPLIES, SAMPLE, build_model, but, good, kept, runner, text

MULTIVERSE = f"""<Think>
{LINES[0]}
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: Find 3 * 4.
</Outline>
<Outline>
2: Find 5 * 6.
</Outline>
</Goal>
<Path>
1: {LINES[1]}
{LINES[2]}
{LINES[3]}
</Path>
<Path>
2: {EDITED}
{LINES[6]}
{LINES[7]}
</Path>
<Conclusion>
The products are 12 and 30.
</Conclusion>
</Parallel>
{LINES[8]}
</Think>

Answer: \\boxed{{42}}<eos>"""
THREADWEAVER = f"""<think>
{LINES[0]}
<Parallel>
<Outlines>
<Outline>1: Find 3 * 4.</Outline>
<Outline>2: Find 5 * 6.</Outline>
</Outlines>
<Thread>
1: {LINES[1]}
{LINES[2]}
{LINES[3]}
</Thread><Thread>
2: {EDITED}
{LINES[6]}
{LINES[7]}
</Thread>
</Parallel>
{LINES[8]}
</think>

\\boxed{{42}}<eos>"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, model):
    return runner(tmp_path, model)


# What comes out.


@pytest.mark.parametrize(("pipeline", "expected"), [("multiverse", MULTIVERSE), ("threadweaver", THREADWEAVER)])
def test_a_solution_becomes_the_text_of_its_pipeline(run, tmp_path, model, pipeline, expected):
    summary, server = run(pipeline=pipeline)
    [trace] = kept(tmp_path)
    assert text(trace, model) == expected
    assert (trace.task, trace.dialect, len(trace.threads)) == ("a", pipeline, 3)
    assert summary["kept"] == 1
    assert summary["usage"]["requests"] == len(server.prompts)
    assert summary["usage"]["prompt_tokens"] == sum(len(prompt.encode()) for prompt in server.prompts)
    assert summary["usage"]["sampled_tokens"] == sum(len(good(prompt).encode()) + 1 for prompt in server.prompts)
    assert summary["acceleration_of_sums"] > 1.3


def test_the_prompt_of_a_trace_is_what_a_session_writes(run, tmp_path, model):
    run()
    [trace] = kept(tmp_path)
    with ParallelLLM(model, dialect="multiverse", engine="torch") as llm:
        [sampled] = llm.generate(SAMPLE["problem"], limits={"tokens": 1}, prompt="multiverse")
    assert trace.prompt_ids == sampled.prompt_ids
    assert trace.prompt == sampled.prompt


def test_blocks_nest_in_multiverse_and_are_text_in_threadweaver(run, tmp_path, model):
    parts = "S2.1: L2-L2: writes\nS2.2: L3-L4: adds"
    goals = {"Part 2:\n" + LINES[2]: "1: Write it.\n2: Add it.\nConclusion: It is 12."}

    def goal(prompt):
        return next((reply for says, reply in goals.items() if says in prompt), REPLIES["multiverse_goals"])

    reply = but(parts=parts, part_groups="P1: [S2.1, S2.2]: alone", multiverse_goals=goal)
    summary, _ = run(reply, pipeline="multiverse")
    assert summary["forks"] == 2
    [trace] = kept(tmp_path)
    assert [thread.label for thread in trace.threads] == ["0", "0.0", "0.0.0", "0.0.1", "0.1"]
    assert f"<Path>\n1.2: {LINES[2]}\n{LINES[3]}\n</Path>\n<Conclusion>\nIt is 12." in text(trace, model)
    summary, _ = run(reply, pipeline="threadweaver", out=tmp_path / "run2")
    assert summary["forks"] == 1


def test_a_thread_that_fails_its_check_is_text_after_the_block(run, tmp_path, model):
    three = "S1: L1: a\nS2: L2-L4: b\nS3: L5-L7: c\nS4: L8: d"
    reply = but(
        steps=three,
        groups="P1: [S2, S3, S4]",
        threadweaver_check="1: passed\n2: **passed**\n3: failed: needs both",
    )
    run(reply, pipeline="threadweaver")
    [trace] = kept(tmp_path)
    assert text(trace, model) == THREADWEAVER


def test_the_traces_train_and_pass_the_validator(run, tmp_path, model, command):
    for pipeline in ("multiverse", "threadweaver"):
        run(pipeline=pipeline, out=tmp_path / pipeline)
        traces = tmp_path / pipeline / "kept.jsonl"
        texts = tmp_path / "texts.jsonl"
        texts.write_text("".join(json.dumps({"text": text(trace, model)}) + "\n" for trace in read_traces(traces)))
        done = command("validate", texts, "--dialect", pipeline, "--model", model)
        assert (done.returncode, done.stdout) == (0, f"1 of 1 texts are well-formed {pipeline}\n")
        job = {
            "out": tmp_path / f"sft_{pipeline}", "model": model, "dialect": pipeline, "batch": 1,
            "data": {"kind": "traces", "files": [traces]},
            "optimization": {"steps": 4, "learning_rate": 2e-2, "micro_batch": 1, "report_to": []},
        }  # fmt: skip
        train(SftConfig.model_validate(job))
        logged = [
            json.loads(line) for line in (tmp_path / f"sft_{pipeline}" / "metrics.jsonl").read_text().splitlines()
        ]
        losses = [line["loss"] for line in logged if "loss" in line]
        assert losses[-1] < losses[0]


def test_a_template_that_opens_the_reasoning_itself_has_it_opened_once(run, tmp_path, model):
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(model)
    words.chat_template = words.chat_template.replace("assistant: ", "assistant: <think>\n")
    words.save_pretrained(tmp_path / "opens")
    run(pipeline="threadweaver", train_model=str(tmp_path / "opens"))
    [trace] = kept(tmp_path)
    assert (trace.prompt + text(trace, model)).count("<think>") == 1
    assert text(trace, model) == THREADWEAVER.removeprefix("<think>\n")


def test_what_follows_the_reasoning_stays_as_it_is(run, tmp_path, model):
    chain = "\n".join([*LINES[:-1], "The sum is 42."])
    run(good, SAMPLE | {"reasoning": f"<think>\n{chain}\n</think>\n\nIt is \\boxed{{42}}."})
    [trace] = kept(tmp_path)
    assert text(trace, model).endswith("The sum is 42.\n</Think>\n\nAnswer: It is \\boxed{42}.<eos>")
