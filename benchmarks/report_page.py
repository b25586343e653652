"""How long a report of many traces takes to write and to open, and a trace of many threads to draw.

    python -m benchmarks.report_page --traces 10000 --threads 1000

Traces are those of the embedded model on held-out problems, sampled at temperature 1 on the torch engine, and taken
again with other ids and log-probs until there are enough: no two are the same to the compression. Times in the browser
are of a real headless Chromium that opens the file from disk: until the summary is there, and until the charts are; and
from the moment a trace is asked for until its lanes and text are in the document and a frame was painted.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from parallel_reason import ParallelLLM, SamplingParams
from parallel_reason.engines import EMBEDDED
from parallel_reason.tasks import find
from parallel_reason.trace import Fork, Span, Thread, Trace, TraceWriter, aggregate, tally
from parallel_reason.viewer import Figure, TokenTexts, find_run, local_tokenizer, trace_page, write_report
from parallel_reason.viewer.page import Counted

SEED = 0
OPENED = "() => performance.now()"


def main() -> None:
    """Measure, and print each figure with its goal."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--traces", type=int, default=10_000)
    arguments.add_argument("--threads", type=int, default=1_000)
    arguments.add_argument("--problems", type=int, default=32, help="that the model runs; the rest are variations")
    arguments.add_argument("--opens", type=int, default=5, help="how often each page is opened")
    arguments.add_argument("--browser", default=shutil.which("chromium"), help="a Chromium")
    given = arguments.parse_args()
    texts = TokenTexts(local_tokenizer(str(EMBEDDED)))
    with TemporaryDirectory() as folder:
        report, single = Path(folder, "report.html"), Path(folder, "trace.html")
        originals = _sampled(given.problems)
        with TraceWriter(Path(folder, "traces.jsonl")) as writer:
            for trace in _variations(originals, given.traces):
                writer.write(trace)
        started = time.perf_counter()
        write_report(report, [find_run(Path(folder, "traces.jsonl"))], lambda _: texts, _figures, "Benchmark", "")
        _print("report written", [time.perf_counter() - started], "s", 60)
        _print("report size", [report.stat().st_size / 1e6], "MB", 50)
        single.write_text(trace_page(_wide(given.threads), texts))
        if given.browser:
            _browse(given.browser, report, single, given.opens)


def _sampled(problems: int) -> list[Trace]:
    """Real traces of the embedded model."""
    wanted = find("countdown").test(problems)
    with ParallelLLM(engine="torch") as llm:
        sampling = SamplingParams(temperature=1.0, n=1, seed=SEED)
        return llm.generate([one.text for one in wanted], sampling, tasks=[one.key for one in wanted])


def _variations(traces: list[Trace], count: int) -> Iterator[Trace]:
    """So many traces: the same threads with ids, tasks and log-probs of their own."""
    noise = np.random.default_rng(SEED)
    for number in range(count):
        trace = traces[number % len(traces)].model_copy(deep=True)
        trace.id, trace.task, trace.sample = f"{number:032x}", f"{trace.task} #{number // 4}", number % 4
        for thread in trace.threads:
            for span in thread.spans:
                jitter = noise.exponential(0.02, len(span.logprobs))
                span.logprobs = [value - more for value, more in zip(span.logprobs, jitter.tolist(), strict=True)]
        yield trace


def _wide(threads: int) -> Trace:
    """A root and children that fork again, each with 40 tokens and times of its own."""
    noise = np.random.default_rng(SEED)
    found = [Thread(label="0", status="finished", spans=[_span("prompt", 12, 0, 0), _span("sampled", 200, 0, 1)])]
    found[0].forks.append(Fork(at=2, join_rule="message"))
    per_child = 9
    while len(found) < threads:
        number, siblings = len(found), found[0].forks[0].children
        child = Thread(label=f"0.{len(siblings)}", parent=0, status="finished")
        siblings.append(number)
        found.append(child)
        child.spans = [_span("injected", 6, 1, 1), _span("sampled", 40, 1.1, 2 + noise.random())]
        below = list(range(number + 1, min(threads, number + 1 + per_child)))
        if below:
            child.forks.append(Fork(at=2, join_rule="message", children=below))
        for place, _ in enumerate(below):
            span = _span("sampled", 40, 3.1, 4 + noise.random())
            found.append(Thread(label=f"{child.label}.{place}", parent=number, status="finished", spans=[span]))
        child.spans.append(_span("injected", 12, 5.2, 5.2))
    found[0].spans.append(_span("sampled", 20, 5.4, 6))
    checked = [Thread.model_validate(thread.model_dump()) for thread in found]
    return Trace(prompt="wide", dialect="spawn_join", model=str(EMBEDDED), threads=checked, ledger=tally(checked, 6.0))


def _span(origin: Any, tokens: int, started_s: float, ended_s: float) -> Span:
    logprobs = [-0.1] * tokens if origin == "sampled" else []
    ids = [20 + place % 200 for place in range(tokens)]
    return Span(ids=ids, origin=origin, logprobs=logprobs, started_s=started_s, ended_s=ended_s)


def _figures(samples: Any) -> list[Figure]:
    counted: list[Counted] = list(samples)
    counts = aggregate(one.ledger for one in counted)
    return [Figure("sampled tokens", counts.sampled_tokens / len(counted))]


def _browse(browser: str, report: Path, single: Path, opens: int) -> None:
    """Open both pages as often as asked, each in a fresh browser context."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        found: dict[str, list[float]] = {}
        for _ in range(opens):
            page = chromium.new_page()
            page.goto(report.as_uri(), wait_until="commit")
            page.wait_for_selector(".summary .list .row")
            found.setdefault("report opened, summary readable", []).append(page.evaluate(OPENED) / 1e3)
            page.wait_for_selector(".chart-box .main-svg", timeout=60_000)
            found.setdefault("report opened, charts drawn", []).append(page.evaluate(OPENED) / 1e3)
            found.setdefault("one trace of it, drawn", []).append(_drawn(page, "#p=100"))
            page.close()
            page = chromium.new_page()
            page.goto(single.as_uri(), wait_until="commit")
            page.wait_for_selector(".lanes .name")
            found.setdefault("page of the wide trace, opened and drawn", []).append(page.evaluate(OPENED) / 1e3)
            page.close()
        chromium.close()
    goals = {"report opened, summary readable": 3.0, "page of the wide trace, opened and drawn": 1.0}
    for name, times in found.items():
        _print(name, times, "s", goals.get(name))


def _drawn(page: Any, place: str) -> float:
    """Seconds from going to a trace until it is painted."""
    script = """(place) => new Promise((done) => {
        const started = performance.now();
        location.hash = place;
        const drawn = () => done(performance.now() - started);
        const look = () => requestAnimationFrame(document.querySelector(".lanes .name") ? drawn : look);
        look();
    })"""
    return float(page.evaluate(script, place)) / 1e3


def _print(name: str, values: list[float], unit: str, goal: float | None) -> None:
    found = {"what": name, "median": round(statistics.median(values), 3), "unit": unit, "n": len(values)}
    found |= {"least": round(min(values), 3), "most": round(max(values), 3)}
    print(json.dumps(found if goal is None else {**found, "goal": f"at most {goal:g}"}), flush=True)


if __name__ == "__main__":
    main()
