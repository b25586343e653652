"""What the pictures that are drawn by code have in common: colours, fonts, fills and background."""

from collections.abc import Iterable, Iterator

THREADS = ("#64748b", "#2f7ed8", "#d9730d", "#1f9d63")  # colours of the root and its children, in order
MARKS = {  # drawn over a pale colour of the thread; a kind without one is filled with the whole colour
    "prompt": '<circle cx="3" cy="3" r="1.2" fill="{}"/>',
    "injected": '<path d="M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2" stroke="{}" stroke-width="1.5"/>',
    "copied": '<path d="M0,1.5 h6 M0,4.5 h6" stroke="{}" stroke-width="1"/>',
    "shared": "",
}
STYLE = """
text { font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; }
.quiet { fill: #59636e; } .gone { text-decoration: line-through; fill: #8b949e; }
.card { fill: #ffffff; } .line { stroke: #ffffff; stroke-width: 1; fill: none; } .edge { stroke: #c9d1d9; fill: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .quiet { fill: #9da7b1; } .gone { fill: #6e7681; }
.card { fill: #0d1117; } .line { stroke: #0d1117; } .edge { stroke: #3d444d; }
}
""".strip()


def fills(used: set[tuple[str, int]]) -> Iterator[str]:
    """The SVG pattern of each kind of token and thread index: the colour is of the thread, the mark of the kind."""
    for kind, thread in sorted(used):
        colour, opacity = THREADS[thread], 0.4 if kind in MARKS else 1
        ground = f'<rect width="6" height="6" fill="{colour}" fill-opacity="{opacity}"/>'
        mark = MARKS.get(kind, "").format(colour)
        head = f'<pattern id="{kind}{thread}" width="6" height="6" patternUnits="userSpaceOnUse">'
        yield f"{head}{ground}{mark}</pattern>"


def swatch(x: int, y: int, fill: str, text: str) -> Iterator[str]:
    """A square of a legend and its text, at ``x, y`` [pixels]."""
    yield f'<rect x="{x}" y="{y}" width="12" height="12" fill="{fill}"/>'
    yield f'<text x="{x + 17}" y="{y + 10}">{text}</text>'


def picture(width: int, height: int, patterns: Iterable[str], body: Iterable[str], style: str = "") -> str:
    """The SVG, of ``width`` and ``height`` pixels; ``style`` is added to the styles that all pictures have."""
    size = f'width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size}>'
    card = f'<rect class="card" {size} rx="6"/>'
    return "\n".join([head, f"<style>{STYLE}{style}</style>", *patterns, card, *body, "</svg>"]) + "\n"
