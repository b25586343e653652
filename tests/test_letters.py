"""Every dialect to the letter: what is sampled, inserted, copied and taken back, and where it stands."""

import asyncio

from benchmarks.grammars import PROMPTS, tokenizer, tokenizer_of
from parallel_reason import Session, layout
from parallel_reason.dialects import bind, find
from parallel_reason.dialects.parathinker import OPENING
from parallel_reason.engines.scripted import ScriptedEngine
from tests.written import BLOCK, ROOMY, positions, run, scripted, written


def test_multiverse_to_the_letter():
    goal = "<Parallel>\n<Goal>\n<Outline>\n1: p\n</Outline>\n<Outline>\n 2.1 : q\n</Outline>\n</Goal>"
    root = ["a" + goal, "s</Conclusion>\n</Parallel>b<eos>"]
    trace = scripted("multiverse", {"0": root, "0.0": [" x</Path>"], "0.1": ["yyy</Path>"]})
    assert written(trace) == {
        "0": "a" + goal + "{\n}{<Conclusion>\n}s</Conclusion>\n</Parallel>b<eos>",
        "0.0": "{<Path>\n1:} x</Path>{\n}",
        "0.1": "{<Path>\n2.1:}yyy</Path>{\n}",
    }
    at = positions(trace)
    assert at("<Path>") == [at("</Goal>")[0] + 1] * 2
    assert at("<Conclusion>") == [max(at("</Path>")) + 1]


def test_npr_to_the_letter():
    plans = "<guideline>\n<plan>1: p</plan>\n<plan>2: q</plan>\n</guideline>"
    trace = scripted("npr", {"0": ["a" + plans, "s</takeaway>b<eos>"], "0.0": [" x</step>"], "0.1": ["yyy<eos>"]})
    assert written(trace) == {
        "0": "a" + plans + "{\n}{<takeaway>\n}s</takeaway>b<eos>",
        "0.0": "{<step>\n1:} x</step>{\n}",
        "0.1": "{<step>\n2:}yyy[<eos>]{\n}",
    }
    at = positions(trace)
    start = at("</guideline>")[0]
    assert at("<step>") == [start + 1] * 2
    assert at("</step>") == [start + len("_\n1: x_")]
    assert at("<takeaway>") == [start + len("_\n2:yyy") + 1]  # one after the longest step, its end of text taken back


def test_threadweaver_to_the_letter():
    outlines = (
        "<Parallel>\n<Outlines>\n<Outline>1: p</Outline>\n<Outline>2: q</Outline>\n<Outline>1: r</Outline></Outlines>"
    )
    texts = {"0": ["a" + outlines, "</Parallel>b<eos>"], "0.0": [" x\n</Thread>"], "0.1": ["yyy</Thread>"]}
    trace = scripted("threadweaver", texts)
    assert written(trace) == {
        "0": "a" + outlines + "(<Thread>\n2:yyy</Thread>){\n}</Parallel>b<eos>",
        "0.0": "{\n<Thread>\n1:} x\n</Thread>",
        "0.1": "{\n<Thread>\n2:}yyy</Thread>",
    }
    row = layout(trace)
    seen = row.mask()[-1]
    text = "ab" + "a" + outlines + "\n<Thread>\n1: x\n</Thread><Thread>\n2:yyy</Thread>\n</Parallel>b<eos>"
    assert tokenizer_of(["threadweaver"]).decode(row.ids[seen].tolist()) == text
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    trace = scripted("threadweaver", {"0": ["a" + outlines], "0.0": [" x<eos>"], "0.1": ["y<eos>"]})
    assert written(trace)["0"] == "a" + outlines + "(<Thread>\n2:y\n</Thread>){\n</Parallel>}"
    assert written(trace)["0.0"] == "{\n<Thread>\n1:} x[<eos>]{\n</Thread>}"
    assert (trace.status, trace.stop_reason) == ("finished", "a thread did not close")


def test_parallel_r1_to_the_letter():
    texts = {"0": ["a<Parallel>", "s<eos>", "b<eos>"], "0.0": ["x</Path>"], "0.1": ["yyy<eos>"]}
    unseen, seen = scripted("parallel_r1", texts), scripted("parallel_r1", texts, view="seen")
    assert written(unseen) == {
        "0": "a<Parallel>{</Parallel>\n<Summary>}s[<eos>]{</Summary>}b<eos>",
        "0.0": "{<Path>}x</Path>",
        "0.1": "{<Path>}yyy[<eos>]{</Path>}",
    }
    at = positions(unseen)
    assert at("<Path>") == [at("<Parallel>")[0] + 1] * 2
    assert at("</Parallel>") == [max(at("</Path>")) + 1]
    assert written(seen) == {
        "0": "a<Parallel>(<Path>yyy</Path>){</Parallel><Summary>}s[<eos>]{</Summary>}b<eos>",
        "0.0": "{<Path>}x</Path>",
        "0.1": "{<Path>}yyy<eos>",
    }
    row = layout(seen)
    shown = row.mask()[-1]
    text = "aba<Parallel><Path>x</Path><Path>yyy</Path></Parallel><Summary>s</Summary>b<eos>"
    assert tokenizer_of(["parallel_r1"]).decode(row.ids[shown].tolist()) == text
    assert row.positions[shown].tolist() == list(range(shown.sum()))


def test_parathinker_to_the_letter():
    trace = scripted("parathinker", {"0": ["s</summary>"], "0.0": ["x</think1>"], "0.1": ["yyy<eos>"]}, paths=2)
    assert written(trace) == {
        "0": "{<summary>}s</summary>",
        "0.0": "{<think1>}x</think1>",
        "0.1": "{<think2>}yyy[<eos>]{</think2>}",
    }
    at = positions(trace)
    assert at("<think1>") == at("<think2>") == [2]
    assert at("<summary>") == [at("</think2>")[0] + 1]


def test_parathinker_as_the_released_engine_runs_it():
    """All thoughts are cut when the first ends, whatever closing tag it wrote; the summary's beginning is given."""
    texts = {"0": [" 4</summary>"], "0.0": ["x" * 40], "0.1": ["y</think5>"], "0.2": ["z" * 40]}
    slow = {"0.0": 0.01, "0.2": 0.01}
    tokens = tokenizer([*find("parathinker").tags.values(), "</think>", *OPENING])
    for end in ("</think5>", "</think>"):
        texts["0.1"] = ["y" + end]
        engine = ScriptedEngine.from_texts(tokens, texts, delay_s=lambda request: slow.get(request.label, 0))
        trace = run(engine, "parathinker", ROOMY, paths=3, join_on="first", opening=True, any_end=True)
        wrote = written(trace, tokens)
        assert wrote["0"] == f"{{<summary>{OPENING}}} 4</summary>"
        assert wrote["0.1"] == f"{{<think2>}}y[{end}]{{</think2>}}"
        for label, number in (("0.0", 1), ("0.2", 3)):
            assert wrote[label].endswith(f"{{</think{number}>}}") or wrote[label] == f"{{<think{number}>}}"
        assert {thread.status for thread in trace.threads} == {"finished", "cancelled"}
        assert {thread.stop_reason for thread in trace.threads if thread.status == "cancelled"} == {"joined on 0.1"}
        row, number = layout(trace), tokens.convert_tokens_to_ids("<summary>")
        longest = max(row.positions[segment.stop - 1] for segment in row.segments if segment.thread)
        assert row.positions[row.ids == number].tolist() == [longest + 1]


def test_apr_to_the_letter():
    found = "x\nGoal Reached\ny\nGoal Reached\n<eos>"
    calls = BLOCK.removeprefix("<Calling Sub Searches>")
    trace = scripted("apr", {"0": ["a<Sub Searches>", calls, "b<eos>"], "0.0": [found], "0.1": ["no<eos>"]})
    assert written(trace) == {
        "0": f"a[<Sub Searches>][{{<Calling Sub Searches>}}][{calls}]"
        "{<Sub Searches>\n<Goal Reached in Sub Search 0 at level 1 at Node #0,1>\ny\nGoal Reached\n"
        "<No Solution in Sub Search 1 at level 1 at Node #0,0>\n<End Sub Searches>\n}b<eos>",
        "0.0": "{Moving to Node #0,1\nCurrent State: 27:[22, 26, 22], Operations: ['53-31=22']}" + found,
        "0.1": "{Moving to Node #0,0\nCurrent State: 27:[22, 31, 27], Operations: ['53-26=27']}no<eos>",
    }
    row = layout(trace)
    child = next(segment for segment in row.segments if segment.thread == 1)
    assert (child.visible, row.positions[child.start]) == ((), 0)  # its node's state alone


def test_apr_does_not_fork_at_a_block_that_its_prompt_quotes():
    tokens = tokenizer_of(["apr"])
    engine = ScriptedEngine.from_texts(tokens, {"0": ["\n<End Calling Sub Searches>\n<eos>"]}, context=20_000)
    prompt = tokens.encode(PROMPTS["apr"] + BLOCK.removesuffix("<eos>") + "Now:\n", add_special_tokens=False)
    [trace] = asyncio.run(Session(engine, bind("apr", tokens)).run(prompt))
    assert [fork.reason for fork in trace.root.malformed] == [
        "<End Calling Sub Searches> without <Calling Sub Searches>"
    ]
    assert not trace.root.forks
