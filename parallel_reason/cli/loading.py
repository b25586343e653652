"""A model loaded for a command: what can be refused is refused before its engine spends time on starting."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from parallel_reason.cli.chat import Call, check_prompts, sent_raw
from parallel_reason.cli.console import INTERRUPTED, STOPPED, print_note, status
from parallel_reason.cli.options import OPTIONS
from parallel_reason.cli.settings import engine_options, settings
from parallel_reason.dialects import find
from parallel_reason.engines import EMBEDDED, early_tokenizer
from parallel_reason.limits import Limits

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM

SHOW_CURSOR = "\x1b[?25h"


def load(params: Mapping[str, Any], call: Call, limits: Limits) -> "ParallelLLM":
    """Load the model that a command's parameters ask for, to run a call.

    Args:
        params: ``model``, ``dialect``, ``option``, ``engine``, ``dtype``, ``engine_option`` and ``chat`` of `options`.

    Raises:
        InputError, ModelError, EngineError: naming what is wrong and the fix.
    """
    model, dialect, engine = params["model"], params["dialect"], params["engine"]
    of_dialect = settings(OPTIONS, params["option"], reserved=("name", "tokenizer"))
    of_engine = engine_options(params["engine_option"], params["dtype"])
    if dialect is not None:
        find(dialect)
    name = model or ("the model of the server" if engine == "openai" else "the embedded Countdown model")
    with ctrl_c_ends_at_once():
        with status(f"reading the tokenizer of {name}"):
            tokenizer = asyncio.run(early_tokenizer(engine, model, **of_engine))
            if tokenizer is not None:
                check_prompts(call, tokenizer, model or str(EMBEDDED), limits)
        if sent_raw(call, tokenizer, params["chat"]):
            print_note(f"{name} has a chat template, and the prompt is sent without it: add --chat, or --no-chat")
        if call.countdown and call.countdown.note:
            print_note(call.countdown.note)
        with status(f"loading {name} on {engine}"):
            from parallel_reason.llm import ParallelLLM

            return ParallelLLM(model, dialect=dialect, dialect_options=of_dialect, engine=engine, **of_engine)


@contextmanager
def ctrl_c_ends_at_once() -> Iterator[None]:
    """Meanwhile Ctrl-C ends this process and those it started, and waits for nothing: imports take tens of seconds."""
    stderr = os.dup(2)  # engines send it to a log while they start

    def end(number: int, frame: object) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        os.write(stderr, f"{SHOW_CURSOR if os.isatty(stderr) else ''}{STOPPED}\n".encode())
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(stderr)
