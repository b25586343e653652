"""Draw the picture of the README, docs/tree.svg: the tree of threads of one problem while it runs.

python docs/make_still.py [FILE]
"""

import asyncio
import sys
from pathlib import Path

from rich.console import Console

from parallel_reason import Session
from parallel_reason.cli.tree import TreeView
from parallel_reason.runtime.events import TokensSampled
from parallel_reason.tasks.countdown import held_out

WIDTH, HEIGHT = 110, 16  # characters, lines
SAMPLED = 38  # tokens of the child that samples fastest, when the picture is taken


async def main(file: Path) -> None:
    """Run until a child has sampled enough tokens, and draw the tree."""
    console = Console(record=True, width=WIDTH, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    view = TreeView()
    async with await Session.start() as session:
        async for event in session.stream(str(held_out(1)[0])):
            view.add(event)
            if isinstance(event, TokensSampled) and "." in event.label and view.branches[event.label].tokens >= SAMPLED:
                break
    console.print(view.draw(WIDTH - 2, HEIGHT))
    file.write_text(console.export_svg(title="parallel-reason generate"), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("tree.svg")))
