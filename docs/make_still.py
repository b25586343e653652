"""Draw the README's picture: the live tree of one problem, in mid-run.

python docs/make_still.py
"""

import asyncio
from pathlib import Path

from rich.console import Console

from parallel_reason import ParallelLLM
from parallel_reason.cli.tree import TreeView
from parallel_reason.countdown import held_out
from parallel_reason.events import Tokens

WIDTH = 110


async def main() -> None:
    """Take the picture when the children have written thirty tokens each."""
    console = Console(record=True, width=WIDTH, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with ParallelLLM() as llm:
        view = TreeView(rows=14)
        async for event in llm.stream(str(held_out(1)[0])):
            view.add(event)
            if isinstance(event, Tokens) and event.label != "0" and view.branches[event.label].tokens >= 38:
                break
    console.print(view.draw(WIDTH - 2))
    Path(__file__).with_name("tree.svg").write_text(console.export_svg(title="parallel-reason generate"))


if __name__ == "__main__":
    asyncio.run(main())
