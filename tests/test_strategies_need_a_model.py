"""Strategies that score, fork, judge or go in rounds: on the torch engine, and where the words matter, on a script."""

import asyncio

import numpy as np
import pytest

from parallel_reason import ParallelLLM, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.prompts import load
from parallel_reason.strategies import NEED_A_MODEL, BestOfN, find, program
from tests.letters import build, letter_tokenizer

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"
SMALL = {
    "no_thinking": "n=3,begin=ab",
    "self_certainty": "n=4",
    "deepconf_offline": "n=5,window=8,keep=0.5",
    "deepconf_online": "n=6,warm_up=3,batch=2,window=8,every=8,keep=0.3",
    "prune_and_fork": "n=4,k=1,every=6,rounds=3",
    "conformal": "n=4,every=6,turns=3",
    "leap": "n=3,every=6,turns=2,summary_tokens=6",
    "pairwise": "n=3,most=2",
    "pdr": "breadths=2+1",
    "sequential_refinement": "breadths=1+1",
    "pacore": "breadths=2+1",
    "rsa": "breadths=2+2,k=1",
    "seat": "breadths=2+2+2,observe=1",
}


def letter(text):
    return text[-1] if text else None


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = build("Qwen3", tmp_path_factory.mktemp("letters"), num_hidden_layers=1)
    letter_tokenizer(eos_token="<eos>", chat_template=CHAT).save_pretrained(folder)
    with ParallelLLM(folder, engine="torch", dialect="none", device="cpu") as started:
        yield started


@pytest.mark.parametrize("name", NEED_A_MODEL)
def test_each_runs_and_is_charged_what_the_engine_sampled(llm, name, monkeypatch):
    sampled, generate = [], llm.engine.generate

    async def counted(request, on_tokens=None):
        output = await generate(request, on_tokens)
        sampled.append(len(output.ids))
        return output

    monkeypatch.setattr(llm.engine, "generate", counted)
    made = program(find(f"{name}:{SMALL[name]}"), answer_of=letter)
    [trace] = llm.run(made, "abc", {"temperature": 1.0, "seed": 3, "logprobs": 4, "max_tokens": 24})
    assert trace.status == "finished", trace.stop_reason
    assert trace.dialect == f"program:{name}:{SMALL[name]}"
    assert trace.ledger.sampled_tokens == sum(sampled) > 0
    assert trace.ledger.critical_path_tokens <= trace.ledger.sampled_tokens
    assert {thread.status for thread in trace.threads} <= {"finished", "length", "cancelled"}
    assert llm._loop.wait(llm.session.kv_is_free())


def sure(thread):
    """Confidences of a thread of a trace, read from its record."""
    tops = [top for span in thread.spans for top in span.top_logprobs]
    return [-sum(top.values()) / len(top) for top in tops]


def test_the_vote_of_certainty_is_what_the_trace_says(llm):
    sampling = {"temperature": 1.0, "seed": 5, "logprobs": 4, "max_tokens": 60}
    [trace] = llm.run(program(find("self_certainty:n=6,power=1"), answer_of=letter), "abc", sampling)
    ended = [thread for thread in trace.threads[1:] if thread.status == "finished" and letter(thread.text)]
    ranked = sorted(ended, key=lambda thread: -np.mean(sure(thread)))
    points = {}
    for rank, thread in enumerate(ranked, start=1):
        points[letter(thread.text)] = points.get(letter(thread.text), 0) + len(ranked) - rank + 1
    assert points[trace.answer] == max(points.values())


def test_best_of_n_takes_what_the_verifier_likes(llm):
    async def verify(text):
        return -len(text)

    [trace] = llm.run(program(BestOfN(verify, n=6), answer_of=letter), "abc", {"temperature": 1.0, "seed": 5})
    texts = [thread.text for thread in trace.threads[1:] if letter(thread.text)]
    assert trace.answer == letter(min(texts, key=len))


TOKENS = letter_tokenizer(eos_token="<eos>", chat_template=CHAT)


def scripted(texts, name, answer_of=letter):
    """The trace of a strategy whose path i writes ``texts[i]``, and what the engine was asked, by label."""
    engine = ScriptedEngine.from_texts(TOKENS, {f"0.{place}": [text] for place, text in enumerate(texts)})
    session = Session(engine, bind("none", TOKENS))
    [trace] = asyncio.run(session.run_program(program(find(name), answer_of=answer_of), "Q"))
    assert trace.status == "finished", trace.stop_reason
    return trace, {request.label: TOKENS.decode(request.ids) for request in engine.requests}


@pytest.mark.parametrize(("verdicts", "answer"), [("AB", "x"), ("BA", "y"), ("AA", "x"), ("zB", "x")])
def test_pairs_are_judged_in_both_orders_and_a_tie_goes_to_the_votes(verdicts, answer):
    trace, _ = scripted(["ax", "by", "cx", *verdicts], "pairwise:n=3")
    assert trace.answer == answer


def test_the_next_round_sees_the_drafts_of_the_last_without_their_thoughts():
    _, asked = scripted(["hhhKKKK", "hhhMMMM", "z"], "pacore:breadths=2+1")
    assert "KKKK" in asked["0.2"]
    assert "MMMM" in asked["0.2"]
    template = load("pacore").render("Q", responses=["KKKK", "MMMM"])
    assert "Reference 2:\nMMMM" in template[0]["content"]


def test_a_round_whose_answers_agree_more_than_before_is_the_last():
    rounds = ["a", "b", "c", "a", "b", "c", "a", "a", "b", "z", "z", "z"]
    trace, asked = scripted(rounds, "seat:breadths=3+3+3+3,observe=2")
    assert trace.answer == "a"
    assert "0.8" in asked
    assert "0.9" not in asked


def test_peers_read_the_summary_of_the_least_similar_path():
    texts = ["kkkk" + "PPPP" + "a" * 4, "kkkk" + "PPPQ" + "b" * 4, "kkkk" + "ZZZZ" + "b" * 4]
    trace, asked = scripted(texts, "leap:n=3,every=4,turns=1,summary_tokens=4,peers=1")
    assert "ZZZZ" in asked["0.0"]
    assert "ZZZZ" in asked["0.1"]
    assert "PPPP" in asked["0.2"]
    assert trace.answer == "b"
