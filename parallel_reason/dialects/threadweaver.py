r"""The ThreadWeaver grammar: plain causal text that a client forks and concatenates again.

    <Parallel>\n<Outlines>\n<Outline>1: ...</Outline>\n<Outline>2: ...</Outline>\n</Outlines>    the parent pauses
    child i:  \n<Thread>\ni:  ...  </Thread>
    parent:   [child 1]<Thread>\n2: ... </Thread>\n</Parallel> ...       the model writes </Parallel> itself

The join relinearises: after the first child, the others are copied under plain causal attention, without the newline
before ``<Thread>``. A child that did not write its closing tag gets ``\n</Thread>``, and the parent then ends after
``\n</Parallel>``, as in the released client. A number that repeats counts once; threads do not nest. An
``</Outlines>`` without a numbered ``<Outline>`` is a malformed fork: the parent goes on sequentially.

Source: ThreadWeaver (Meta, 2025), single_turn_agent_loop.py of its released code.
"""

from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Finish,
    Insert,
    Reject,
    StartFork,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.form import TOP, Content, Form
from parallel_reason.dialects.tagged import Tagged, close_if_open, closes_and_copies, item_numbers
from parallel_reason.trace.thread import JoinRule


class ThreadWeaver(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "threadweaver"
    tags: ClassVar[dict[str, str]] = {
        "think": "<Think>", "think_end": "</Think>",
        "parallel": "<Parallel>", "parallel_end": "</Parallel>",
        "outlines": "<Outlines>", "outlines_end": "</Outlines>",
        "outline": "<Outline>", "outline_end": "</Outline>",
        "thread": "<Thread>", "thread_end": "</Thread>",
        "conclusion": "<Conclusion>", "conclusion_end": "</Conclusion>",
    }  # fmt: skip
    form: ClassVar[Form] = Form(  # as is_parallel_format_correct_v2 asks for; the trie drops blanks between threads
        contents={
            TOP: Content("think|parallel*"),
            "think": Content("parallel*"),
            "parallel": Content("outlines thread+ conclusion?", text=False),
            "outlines": Content("outline+"),
            "outline": Content(),
            "thread": Content(),
            "conclusion": Content(),
        },
        numbered=("outline", "thread"),
        opens_child=("thread",),
        closes_block="parallel_end",
        drops_blanks=True,
    )

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The children's tokens are concatenated."""
        return "relinearise"

    def stops(self, depth: int) -> Stops:
        """``</Outlines>`` in the root, ``</Thread>`` in a child."""
        return self.stops_at("thread_end" if depth else "outlines_end")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``</Outlines>``; a child ends at ``</Thread>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos" or view.depth:
            return Finish()
        outlines = self.last_opened(view, "outlines")
        if outlines is None:
            return Reject("</Outlines> without <Outlines>")
        text, start = outlines
        numbers = list(dict.fromkeys(item_numbers(text, "<Outline>", start)))
        if not numbers:
            return Reject("<Outlines> without a numbered <Outline>")
        encode = self.vocabulary.encode
        return StartFork(tuple(ChildSpec((Insert(encode(f"\n<Thread>\n{number}:")),)) for number in numbers))

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """The children, then a newline; or ``</Parallel>`` and the end, if one of them did not close."""
        encode, decode = self.vocabulary.encode, self.vocabulary.decode
        tag = encode("\n</Thread>")
        texts = [decode(ids_of(child.header)) for child in children]
        headers = [encode(text.removeprefix("\n" if number else "")) for number, text in enumerate(texts)]
        closes, copies = closes_and_copies(children, [close_if_open(child, tag) for child in children], headers)
        if all(child.ended == "stop" for child in children):
            return Continuation((*copies, Insert(encode("\n"))), closes)
        return Continuation((*copies, Insert(encode("\n</Parallel>"))), closes, ends="a thread did not close")
