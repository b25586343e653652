"""The tree of threads on a terminal, and the lines where there is none."""

import asyncio
import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from parallel_reason.cli.demo import Row, _table
from parallel_reason.cli.output import summary
from parallel_reason.cli.tree import TreeView, plain_lines, print_ended
from parallel_reason.runtime.events import ForkJoined, ThreadEnded, ThreadStarted, TokensSampled
from parallel_reason.tasks.countdown import held_out
from tests.scripted import FORKS, session

TEXT = st.text(st.characters() | st.sampled_from("\n\t\x1b你好🙂e\u0301"), max_size=300)


def lines(view, width=80, height=24):
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    console.print(view.draw(width - 2, height))
    return console.file.getvalue().splitlines()


def started(prompt, *headers, title=None):
    view = TreeView(title)
    view.add(ThreadStarted("t", "0", None, prompt))
    for number, header in enumerate(headers):
        view.add(ThreadStarted("t", f"0.{number}", "0", header))
    return view


@given(TEXT, st.lists(TEXT, max_size=5), TEXT, st.integers(40, 120))
def test_every_thread_is_one_row_of_the_terminals_width(prompt, headers, text, width):
    view = started(prompt, *headers)
    for label in list(view.branches):
        view.add(TokensSampled("t", label, (1, 2), text))
    shown = lines(view, width)
    assert len(shown) == 1 + len(headers)
    assert all(cell_len(line) <= width for line in shown)
    assert not any(character in line for line in shown for character in "\x1b\r\x00\x9b")


def test_of_a_long_prompt_and_text_both_are_seen():
    view = started("Solve this.\n\n" + "It is long. " * 100, title=None)
    view.add(TokensSampled("t", "0", (1,), "some text\n\nand its newest words"))
    (row,) = lines(view)
    assert row.startswith("● Solve this. It is")
    assert row.rstrip().endswith("and its newest words")
    assert "…" in row


def test_of_text_in_wide_characters_the_newest_is_seen():
    view = started("题" * 100)
    view.add(TokensSampled("t", "0", (1,), "你好" * 100 + "末"))
    (row,) = lines(view)
    assert row.rstrip().endswith("末")


def test_a_title_stands_for_the_prompt():
    (row,) = lines(started("<|im_start|>system\nYou are", title="Why?"))
    assert "Why?" in row
    assert "im_start" not in row


@given(st.integers(0, 60), st.integers(4, 30), st.integers(0, 60))
def test_of_more_threads_than_rows_the_running_ones_are_drawn(children, height, ended):
    view = started("P", *(f"child {number}" for number in range(children)))
    for number in range(min(ended, children)):
        view.add(ThreadEnded("t", f"0.{number}", "finished", "end"))
    shown = lines(view, height=height)
    assert len(shown) <= height
    drawn = [line for line in shown if "child" in line]
    running = max(0, children - ended)
    assert sum("●" in line for line in drawn) == min(running, len(drawn))
    if children + 1 <= height:
        assert len(drawn) == children
    else:
        assert f"… {children - len(drawn)} more, {min(ended, children)} of {children} ended" in shown[1]


def test_a_child_that_is_drawn_has_its_parents():
    view = started("P", *"ab")
    label = "0.1"
    for _ in range(12):
        view.add(ThreadStarted("t", f"{label}.0", label, "deep"))
        label += ".0"
    assert len(lines(view, height=30)) == 15
    assert len(lines(view, height=8)) == 15  # the newest thread is drawn, however deep


def test_a_line_is_written_as_soon_as_its_thread_ends_and_says_what_the_trace_says():
    written, seen = [], []

    async def events():
        async for event in session(FORKS).stream("Q"):
            seen.append((type(event), list(written)))
            yield event

    def write(line):
        written.append(line)
        return True

    over = session(FORKS)
    trace = asyncio.run(print_ended(events(), over.engine.tokenizer, over.engine.eos_ids, write))
    assert sorted(written) == sorted(plain_lines(trace))
    assert [line.split()[0] for line in written][-1] == "0"
    before_join = next(lines for kind, lines in seen if kind is ForkJoined)
    assert {line.split()[0] for line in before_join} == {"0.0", "0.1", "0.2"}


def test_when_nobody_reads_the_run_is_left():
    over = session(FORKS)

    async def run():
        return await print_ended(over.stream("Q"), over.engine.tokenizer, over.engine.eos_ids, lambda line: False)

    assert asyncio.run(run()) is None


@given(TEXT)
def test_a_line_holds_one_thread_whatever_it_wrote(text):
    trace = asyncio.run(session({"0": ["a<eos>"]}).run("Q"))[0]
    trace.threads[0].text = text
    trace.threads[0].stop_reason = text
    (line,) = plain_lines(trace)
    assert len(line.splitlines()) == 1


def test_a_single_answer_is_printed_whole_and_so_is_one_that_was_cut():
    trace = asyncio.run(session({"0": ["a<eos>"]}).run("Q"))[0]
    trace.answer = "one\ntwo"
    assert summary(trace, "A\n\nquestion", whole=True).plain.startswith("one\ntwo\nA question  (2 tokens in 1 thread, ")
    assert summary(trace, "Q").plain.startswith("Q  one\\ntwo  (2 tokens")
    trace.answer, trace.threads[0].stop_reason = None, "limits.tokens=2"
    assert summary(trace, "Q", whole=True).plain.startswith("a\nQ  no answer: limits.tokens=2  (2 tokens")


def test_the_table_of_the_demo_fits_a_terminal_of_80_columns():
    trace = asyncio.run(session(FORKS).run("Q"))[0]
    trace.ledger.sampled_tokens *= 100
    rows = [Row("one after another", serial, [trace] * 2000, 12345.6) for serial in (False, True)]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(_table(held_out(), rows))
    shown = console.file.getvalue()
    assert "…" not in shown
    for text in ("one after another", "0 of 2000", "path", "acceler-", "seconds", "12345.6"):
        assert text in shown
