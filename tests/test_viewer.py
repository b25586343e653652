"""What pages and exports derive from a trace, against the ledger and the most naive reading."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason.trace import Trace
from parallel_reason.viewer import TokenTexts
from parallel_reason.viewer.bars import bars
from parallel_reason.viewer.critical import clocks, critical_spans
from parallel_reason.viewer.lanes import lanes
from parallel_reason.viewer.record import THREAD_TOKENS, body
from parallel_reason.viewer.taken_back import taken_back
from tests.strategies import traces
from tests.viewing import DIALECTS, drawn, nasty, texts_of, tokenizer


@st.composite
def forked(draw):
    """Traces of which some forks are joined later, and some never."""
    trace = draw(traces(depth=2, wild=True))
    for thread in trace.threads:
        for fork in thread.forks:
            kind = draw(st.sampled_from(["waits", "beside", "never"]))
            fork.waited = kind != "never"
            fork.joined_at = draw(st.integers(fork.at, len(thread.spans))) if kind == "beside" else None
    return Trace.model_validate(trace.model_dump())


def ledger_of(trace):
    from parallel_reason.trace import tally

    return tally(trace.threads)


@given(forked())
def test_the_marked_spans_are_as_long_as_the_critical_path(trace):
    marked = critical_spans(trace.threads)
    sampled = [trace.threads[thread].spans[span] for thread, span in marked]
    assert sum(len(span.ids) for span in sampled if span.origin == "sampled") == ledger_of(trace).critical_path_tokens


@given(forked())
def test_the_clock_of_steps_ends_at_the_critical_path_and_nothing_starts_before_what_it_saw(trace):
    starts, places = clocks(trace.threads)
    assert places[0][-1] == ledger_of(trace).critical_path_tokens
    for number, thread in enumerate(trace.threads):
        assert starts[number] <= places[number][0]
        for (span, here), after in zip(
            zip(thread.spans, places[number], strict=False), places[number][1:], strict=True
        ):
            assert after >= here + (len(span.ids) if span.origin == "sampled" else 0)
        for fork in thread.forks:
            for child in fork.children:
                place = fork.at if fork.joined_at is None else fork.joined_at
                assert starts[child] >= starts[number]
                if fork.waited:
                    assert places[number][place] >= places[child][-1]


@given(traces(depth=2, wild=True))
def test_taken_back_tokens_are_those_that_a_thread_saw_and_sees_no_more(trace):
    """Read token by token: a thread sees a list, and each span takes its newest so many away."""
    gone = set()

    def end_of(number, seen):
        thread = trace.threads[number]
        for place in range(len(thread.spans) + 1):
            for fork in thread.forks:
                if fork.at != place:
                    continue
                born = seen if fork.shares_prefix else []
                ends = [(child, end_of(child, list(born))) for child in fork.children]
                ran = [end for child, end in ends if trace.threads[child].ran]
                if fork.join_rule == "relinearise" and ends and trace.threads[ends[0][0]].ran:
                    seen = ends[0][1]
                elif fork.join_rule == "graft":
                    seen = list(dict.fromkeys([*seen, *(token for end in ran for token in end)]))
            if place < len(thread.spans):
                count = min(thread.spans[place].taken_back, len(seen))
                gone.update(seen[len(seen) - count :])
                seen = seen[: len(seen) - count]
                seen = seen + [(number, place, at) for at in range(len(thread.spans[place].ids))]
        return seen

    end_of(0, [])
    found = {
        (thread, span, at)
        for (thread, span), intervals in taken_back(trace).items()
        for start, stop in intervals
        for at in range(start, stop)
    }
    assert found == gone


@pytest.mark.parametrize("dialect", DIALECTS)
def test_lanes_are_whole_and_agree_with_the_recorded_times(dialect):
    for trace in drawn(dialect):
        times = lanes(trace.threads)
        for thread, lane in zip(trace.threads, times, strict=True):
            assert all(before.ended_s <= after.started_s for before, after in pairwise(lane.phases))
            if lane.phases:
                assert lane.started_s <= lane.phases[0].started_s
                assert lane.phases[-1].ended_s <= lane.ended_s
            for phase in lane.phases:
                if phase.kind == "decoding":
                    span = thread.spans[phase.span]
                    assert span.origin == "sampled"
                    assert (span.started_s, span.ended_s) == (phase.started_s, phase.ended_s)
            if thread.waiting_s == 0:
                assert all(phase.kind != "waiting" for phase in lane.phases)
            for fork in thread.forks:
                for child in fork.children:
                    assert times[child].started_s >= lane.started_s
                    if fork.waited and trace.threads[child].ran:
                        assert times[child].ended_s <= lane.ended_s


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_tokens_of_a_page_spell_what_the_tokenizer_says(dialect):
    texts, words = texts_of(dialect), tokenizer(dialect)
    for trace in drawn(dialect):
        page = body(trace, texts)
        for thread, one in zip(trace.threads, page["threads"], strict=True):
            for span, shown in zip(thread.spans, one["s"], strict=True):
                pieces = shown.get("x") or spelled(texts, span.ids)
                assert "".join(pieces) == words.decode(span.ids, skip_special_tokens=False)


def spelled(texts, ids):
    """What the page makes of ids without pieces of their own: `pieces` of data.js."""
    return [texts.pairs.get((ids[at - 1], token) if at else None, texts.texts[token]) for at, token in enumerate(ids)]


def bytes_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({sign: at for at, sign in enumerate(alphabet)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def test_a_character_of_several_tokens_is_shown_once_and_whole():
    words = bytes_tokenizer()
    ids = words.encode("a€b🙂", add_special_tokens=False)
    assert len(ids) == 9
    pieces = TokenTexts(words).pieces(ids)
    assert pieces == ["a", "", "", "€", "b", "", "", "", "🙂"]
    assert TokenTexts(words).pieces(words.encode("plain", add_special_tokens=False)) is None


def test_numbers_beside_one_another_are_apart():
    from parallel_reason.engines import EMBEDDED
    from parallel_reason.viewer import local_tokenizer

    words = local_tokenizer(str(EMBEDDED))
    texts, ids = TokenTexts(words), words.encode("22,26 31", add_special_tokens=False)
    assert texts.pieces(ids) is None
    assert "".join(spelled(texts, ids)) == words.decode(ids) == "22,26 31"


def test_long_threads_are_cut_with_a_note_and_odd_numbers_are_json():
    import json

    from parallel_reason.trace import Span, Thread

    trace = nasty("x" * 300_000)
    page = json.loads(json.dumps(body(trace, None), allow_nan=False))
    assert page["cut"] == [200_000, 200_000]
    assert [len(page["prompt"]), page["threads"][0]["xc"]] == [100_000, 200_000]
    assert page["threads"][0]["s"][1]["p"] == [10**9, -1]
    long = Span(ids=[5] * (THREAD_TOKENS + 7), origin="sampled")
    whole = trace.model_copy(update={"threads": [Thread(label="0", status="finished", spans=[long, long])]})
    spans = body(whole, None)["threads"][0]["s"]
    assert [(len(span["i"]), span["cut"]) for span in spans[:1]] == [(THREAD_TOKENS, 7)]
    assert (spans[1]["i"], spans[1]["cut"]) == ([], THREAD_TOKENS + 7)


@given(forked())
def test_bars_draw_every_thread_once_below_its_parent(trace):
    found, what = bars(trace, 40)
    assert sorted(bar.thread for bar in found) == list(range(len(trace.threads)))
    rows = {bar.thread: row for row, bar in enumerate(found)}
    assert all(rows[thread.parent] < rows[number] for number, thread in enumerate(trace.threads) if number)
    assert all(len("".join(text for _, text in bar.runs())) == 40 for bar in found)
    assert what.endswith("token steps")


@pytest.mark.parametrize(("child", "marked"), [(8, {(0, 0), (1, 0), (0, 2)}), (2, {(0, 0), (0, 1), (0, 2)})])
def test_beside_children_the_longer_of_the_two_ways_is_marked(child, marked):
    """The root samples 5, forks, samples 3 while its child runs, joins, and samples 2."""
    from parallel_reason.trace import Fork, Span, Thread

    spans = [Span(ids=[1] * tokens, origin="sampled") for tokens in (5, 3, 2)]
    fork = Fork(at=1, joined_at=2, join_rule="message", children=[1])
    below = Thread(label="0.0", parent=0, status="finished", spans=[Span(ids=[1] * child, origin="sampled")])
    threads = [Thread(label="0", status="finished", spans=spans, forks=[fork]), below]
    assert critical_spans(threads) == marked
    starts, places = clocks(threads)
    assert starts == [0, 5]
    assert places[0] == [0, 5, 5 + max(3, child), 5 + max(3, child) + 2]
