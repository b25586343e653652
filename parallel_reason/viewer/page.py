"""One self-contained HTML page of runs, or of a single trace: no network, no server.

Traces are embedded as compressed JSON, a chunk of them at a time, and unpacked when they are looked at; model text
never stands in the page as HTML. `write_whole` puts the page in its place, so a report is whole or not there.
"""

import base64
import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment

from parallel_reason.errors import InputError
from parallel_reason.trace import Ledger, Trace
from parallel_reason.viewer.files import compact, write_whole
from parallel_reason.viewer.record import ROW_CHARACTERS, body, clip, problem_key, row
from parallel_reason.viewer.runs import Run, Sample
from parallel_reason.viewer.tokens import TokenTexts

SCRIPTS = ("text", "dom", "data", "lanes", "words", "trace", "list", "charts", "summary", "main")
CHUNK = 400_000  # characters of JSON that are compressed together
NO_CHARTS = "charts need plotly: pip install 'parallel-reason[report]'"

TextsOf = Callable[[Trace], TokenTexts | None]


@dataclass(frozen=True)
class Figure:
    """One number of a run in the table of a report.

    Attributes:
        name: of its column; ``help`` is its definition.
        value: None where it is not known.
        low, high: its 95% interval, if it has one.
        digits: after the point; ``percent``: whether it is a share.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    digits: int = 1
    percent: bool = False
    help: str = ""


@dataclass(frozen=True)
class Counted:
    """What figures are made from: a sample without its tokens."""

    problem: str
    correct: bool | None
    ledger: Ledger


Summarise = Callable[[Sequence[Counted]], Sequence[Figure]]


@dataclass
class _Pages:
    """Samples on their way into a page.

    Attributes:
        columns: the rows of all samples, by column.
        problems: key to its number.
        texts: token texts, each tokenizer once.
    """

    texts_of: TextsOf
    columns: dict[str, list[Any]] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    texts: list[TokenTexts] = field(default_factory=list)
    chunk: int = 0
    waiting: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, run: int, sample: Sample) -> Iterator[str]:
        """Take a sample; gives a chunk when one is full."""
        trace = sample.trace
        key = problem_key(trace)
        texts = self.texts_of(trace)
        one = body(trace, texts, sample.correct)
        if texts is not None:
            if texts not in self.texts:
                self.texts.append(texts)
            one["tk"] = self.texts.index(texts)
        line = {"run": run, "problem": self.problems.setdefault(key, len(self.problems)), **row(trace, sample.correct)}
        line |= {"chunk": self.chunk, "at": len(self.waiting)}
        for name, value in line.items():
            self.columns.setdefault(name, []).append(value)
        text = compact(one)
        self.waiting.append(text)
        self.size += len(text)
        if self.size > CHUNK:
            yield self.flush()

    def flush(self) -> str:
        """All that waits, as one chunk."""
        text = packed(f"[{','.join(self.waiting)}]")
        self.waiting, self.size, self.chunk = [], 0, self.chunk + 1
        return text

    def index(self, **more: Any) -> str:
        """What the page reads first."""
        keys = [clip(key, ROW_CHARACTERS).text for key in self.problems]
        vocabularies = [
            {
                "texts": [list(texts.texts), [clip(text).text for text in texts.texts.values()]],
                "pairs": [[before, token, clip(text).text] for (before, token), text in texts.pairs.items()],
                "control": sorted(texts.control & texts.texts.keys()),
                "tags": texts.tags,
            }
            for texts in self.texts
        ]
        return packed(compact({"columns": self.columns, "problems": keys, "vocabularies": vocabularies, **more}))


def write_report(
    path: Path, runs: Sequence[Run], texts_of: TextsOf, summarise: Summarise, title: str, made: str
) -> int:
    """Write the report of runs; how many traces are in it.

    Args:
        made: when, for people.

    Raises:
        InputError: no run, a run that cannot be read, no plotly, or a place that cannot be written.
    """
    if not runs:
        raise InputError("a report needs a run: give folders of evaluations, or JSONL files of traces")
    charts, pages = _plotly(), _Pages(texts_of)
    told: list[dict[str, Any]] = []

    def chunks() -> Iterator[str]:
        for number, run in enumerate(runs):
            counted = []
            for sample in run.samples():
                counted.append(Counted(problem_key(sample.trace), sample.correct, sample.trace.ledger))
                yield from pages.add(number, sample)
            figures = [asdict(figure) for figure in summarise(counted)]
            told.append({"name": run.name, "file": str(run.file), "notes": run.notes, "figures": figures})
        yield pages.flush()

    write_whole(path, _parts(title, chunks(), lambda: pages.index(runs=told, title=title, made=made), charts))
    return len(pages.columns["run"])


def trace_page(trace: Trace, texts: TokenTexts | None = None, correct: bool | None = None) -> str:
    """The page of one trace."""
    pages = _Pages(lambda _: texts)
    chunks = [*pages.add(0, Sample(trace, correct))] or [pages.flush()]
    title = f"Trace of {clip(problem_key(trace), 60).text}"
    return "".join(_parts(title, iter(chunks), lambda: pages.index(single=True, title=title), None))


def write_trace_page(path: Path, trace: Trace, texts: TokenTexts | None = None) -> None:
    """Write the page of one trace.

    Raises:
        InputError: the place cannot be written.
    """
    write_whole(path, [trace_page(trace, texts)])


def packed(text: str) -> str:
    """Text as gzip in base64, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _parts(title: str, chunks: Iterator[str], index: Callable[[], str], charts: str | None) -> Iterable[str]:
    """The page in pieces; ``index`` is asked when all chunks are written."""
    folder = files("parallel_reason.viewer") / "assets"
    # Not HTML from a model: all that is rendered unescaped is this package's own, or base64.
    template = Environment(autoescape=True).from_string((folder / "page.html.jinja").read_text())
    return template.stream(
        title=clip(title, ROW_CHARACTERS).text,
        style=(folder / "style.css").read_text(),
        scripts=[(folder / f"{name}.js").read_text() for name in SCRIPTS],
        chunks=chunks,
        index=index,
        charts=charts,
    )


def _plotly() -> str:
    """Plotly's bundle, packed.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("plotly") is None:
        raise InputError(NO_CHARTS)
    return packed((files("plotly") / "package_data" / "plotly.min.js").read_text())
