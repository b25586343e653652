"""What a notebook shows of a trace: its page, in a frame of its own."""

from html import escape
from typing import Any

from parallel_reason.trace import Trace
from parallel_reason.viewer.page import trace_page
from parallel_reason.viewer.tokens import TokenTexts, local_tokenizer

HEIGHT = 640  # pixels


def trace_html(trace: Trace, tokenizer: Any | None = None) -> str:
    """A trace as HTML for a notebook's cell.

    Args:
        tokenizer: of the model; by itself that of the model folder that the trace names, if it is there.
    """
    tokenizer = tokenizer or local_tokenizer(trace.model)
    page = trace_page(trace, None if tokenizer is None else TokenTexts(tokenizer))
    style = f"width:100%;height:{HEIGHT}px;border:1px solid #8884;border-radius:8px"
    title = escape(f"trace {trace.id:.40}")
    return f'<iframe srcdoc="{escape(page)}" style="{style}" sandbox="allow-scripts" title="{title}"></iframe>'
