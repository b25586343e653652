"""The part of jinja2 that prompt files may use: variables, conditions, and loops over the items of a variable.

Files are untrusted. Nothing can be called, computed, included or defined, loops do not nest, and the length of a text
is bounded, so rendering one ends soon, whatever it holds. What the variables hold is never read as a template.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parallel_reason.errors import InputError, first_line

MAX_CHARS = 1 << 24  # of a rendered text
ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.If, nodes.For,
    nodes.Not, nodes.And, nodes.Or, nodes.Compare, nodes.Operand,
)  # fmt: skip
OF_LOOP = ("index", "first", "last")  # the attributes of ``loop``; nothing else has any
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.globals.clear()


def variables_of(source: str) -> frozenset[str]:
    """The names of the variables that a text uses.

    Raises:
        InputError: it is not of the language.
    """
    return _compiled(source)[1]


def render(source: str, values: Mapping[str, Any]) -> str:
    """The text with its variables filled in.

    Raises:
        InputError: a variable that it uses is missing or of the wrong kind, or the text is too long.
    """
    parts: list[str] = []
    length = 0
    try:
        for part in _compiled(source)[0].generate(values):
            parts.append(part)
            length += len(part)
            if length > MAX_CHARS:
                raise InputError(f"the rendered text has more than {MAX_CHARS} characters")
    except (TemplateError, TypeError) as error:  # a TypeError is a loop over a number, or its comparison with a text
        raise InputError(first_line(error)) from None
    return "".join(parts)


@lru_cache(maxsize=256)
def _compiled(source: str) -> tuple[Template, frozenset[str]]:
    try:
        tree = _ENVIRONMENT.parse(source)
        for node in tree.find_all(nodes.Node):
            _check(node)
        return _ENVIRONMENT.from_string(source), frozenset(meta.find_undeclared_variables(tree))
    except (TemplateError, RecursionError, SyntaxError, ValueError) as error:  # nested too deep; a number too long
        raise InputError(f"not a template: {first_line(error)}") from None


def _check(node: nodes.Node) -> None:
    """Refuse what is not of the language."""
    what = None
    if not isinstance(node, ALLOWED):
        what = type(node).__name__
    elif isinstance(node, nodes.For) and (not isinstance(node.iter, nodes.Name) or node.find(nodes.For)):
        what = "a loop within a loop, or over anything but a variable"
    elif isinstance(node, nodes.Getattr) and not (
        isinstance(node.node, nodes.Name) and node.node.name == "loop" and node.attr in OF_LOOP
    ):
        what = f"the attribute {node.attr!r}"
    if what is not None:
        raise InputError(f"line {node.lineno}: a prompt may not use {what}")
