"""``parallel-reason prompts``: the prompts that are shipped, and what one of them says."""

from typing import Annotated

import typer
from rich.text import Text

from parallel_reason.cli.console import PlainConsole, one_line
from parallel_reason.prompts import PromptTemplate, load, names


def show_prompts(
    name: Annotated[str | None, typer.Argument(help="A prompt of the list, or the path of a prompt file.")] = None,
) -> None:
    """List the prompts that make models fork, or show one with an example.

    Example: parallel-reason prompts multiverse_few_shot
    """
    console = PlainConsole(soft_wrap=True)
    if name is None:
        for template in map(load, names()):
            console.print(Text.assemble((template.name, "bold"), f"  {_about(template)}"))
        return
    template = load(name)
    console.print(Text.assemble((one_line(template.name), "bold"), f", version {template.version}"))
    console.print(_about(template))
    for variable in template.required:
        console.print(f"variable {variable}, which must be given")
    for variable, default in template.variables.items():
        console.print(one_line(f"variable {variable}, by default {default!r}"))
    if template.chat_template_kwargs:
        console.print(one_line(f"variables of the chat template: {template.chat_template_kwargs}"))
    said = template.render(template.example, **dict.fromkeys(template.required, "..."))
    parts = [("raw text", said)] if isinstance(said, str) else [(each["role"], each["content"]) for each in said]
    parts += [("the reply begins", template.suffix)] if template.suffix else []
    for heading, text in parts:
        console.print(Text(f"--- {heading}", style="cyan"))
        console.print("\n".join(map(one_line, text.split("\n"))))


def _about(template: PromptTemplate) -> str:
    """Its dialect, what it is and where it is from, in one line."""
    dialect = f"{template.dialect}: " if template.dialect else ""
    return one_line(f"{dialect}{template.description} [{template.source}]")
