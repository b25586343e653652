"""The page of a report in a real browser: opened from disk, clicked, typed at, resized, in the dark, by keyboard."""

import re

import pytest

from parallel_reason.trace import Fork, Span, Thread, Trace, tally
from parallel_reason.viewer import Figure, find_run, trace_page, write_report
from tests.browser import chromium, opened
from tests.viewing import NASTY, drawn, nasty, texts_of, tokenizer, write


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def figures(samples):
    return [Figure("accuracy", 0.5, 0.25, 0.75, percent=True, help="of a test"), Figure("critical path", 12.0)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two runs of the same problems; in the second, one trace has texts that are hard to show."""
    folder = tmp_path_factory.mktemp("report")
    traces = [trace for dialect in ("spawn_join", "multiverse") for trace in drawn(dialect)]
    files = write(folder / "first.jsonl", traces), write(folder / "second.jsonl", [*traces, nasty()])
    runs = [find_run(file) for file in files]
    runs[0].verdicts = {trace.id: trace.sample == 0 for trace in traces}
    kept = {dialect: texts_of(dialect) for dialect in ("spawn_join", "multiverse")}
    out = folder / "report.html"
    write_report(out, runs, lambda trace: kept.get(trace.dialect), figures, "Two runs", "now")
    return out, traces


def test_the_summary_has_the_figures_the_charts_and_every_problem(browser, report):
    out, traces = report
    with opened(browser, out) as page:
        assert page.title() == "Two runs"
        cells = page.locator("tbody tr").first.locator("td").all_inner_texts()
        assert [" ".join(cell.split()) for cell in cells] == ["50.0% [25.0%, 75.0%]", "12"]
        page.wait_for_selector(".chart-box .main-svg")
        names = [box.get_attribute("aria-label") for box in page.locator(".chart-box").all()]
        assert names == ["accuracy against critical path", "threads a trace", "acceleration"]
        problems = {trace.task for trace in traces}
        assert page.locator(".list .row").count() == len(problems) + 1
        assert page.locator("output").inner_text() == f"{len(problems) + 1} of {len(problems) + 1}"
        page.locator("#search").fill("MULTI")
        page.wait_for_function("() => document.querySelectorAll('.list .row').length == 2")
        page.locator("select[aria-label='Which problems']").select_option("never right")
        page.wait_for_function("() => document.querySelectorAll('.list .row').length == 0")


def test_a_trace_is_reached_by_a_click_and_two_runs_stand_side_by_side(browser, report):
    out, traces = report
    with opened(browser, out) as page:
        page.locator(".list .row").first.click()
        page.wait_for_selector(".panes.two .pane:nth-child(2) .lanes .name")
        shown = [place.inner_text() for place in page.locator("dl.what dd:first-of-type").all()]
        assert shown == [traces[0].prompt] * 2
        page.locator("select[aria-label='Second trace']").select_option("")
        page.wait_for_selector(".panes:not(.two) .lanes .name")
        assert page.locator(".pane").count() == 1
        page.go_back()
        page.wait_for_selector(".panes.two")


def test_all_is_reached_by_keyboard(browser, report):
    out, _ = report
    with opened(browser, out) as page:
        page.keyboard.press("/")
        page.keyboard.type("multiverse problem 0")
        page.wait_for_function("() => document.querySelectorAll('.list .row').length == 1")
        page.keyboard.press("Escape")
        page.locator(".list").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".lanes .name")
        page.keyboard.press("t")
        label = page.locator(".lanes .name.on .label")
        page.keyboard.press("ArrowDown")
        page.wait_for_function("() => document.querySelector('.lanes .name.on .label').textContent != '0'")
        below = label.first.inner_text()
        assert page.locator(".thread-head h3").first.inner_text().startswith(f"Thread {below} ")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("() => document.querySelectorAll('.pane:first-child .lanes .name').length == 1")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.className") == "words"
        page.keyboard.press("n")
        page.wait_for_function(
            "() => !location.hash.includes('a=') && document.querySelector('h2').textContent != 'multiverse problem 0'"
        )
        page.keyboard.press("u")
        page.wait_for_selector(".summary")
        page.keyboard.press("?")
        assert page.locator("dialog[open]").count() == 1


@pytest.mark.parametrize("dialect", ["spawn_join", "multiverse", "threadweaver", "async_think"])
def test_the_page_spells_every_thread_as_it_was_and_marks_what_it_should(browser, tmp_path, dialect):
    trace = max(drawn(dialect), key=lambda trace: len(trace.threads))
    path = tmp_path / "trace.html"
    path.write_text(trace_page(trace, texts_of(dialect)))
    words = tokenizer(dialect)
    with opened(browser, path) as page:
        for row in range(page.locator(".lanes .name").count()):
            name = page.locator(".lanes .name").nth(row)
            thread = trace.thread(name.locator(".label").inner_text())
            name.click()
            page.wait_for_function(
                f"() => document.querySelector('.thread-head h3').textContent.startsWith('Thread {thread.label} ')"
            )
            for origin in ("prompt", "sampled", "injected", "copied"):
                own = "".join(page.locator(f".words .w.{origin}").all_text_contents())
                spans = [span.ids for span in thread.spans if span.origin == origin]
                assert own == "".join(words.decode(ids, skip_special_tokens=False) for ids in spans)
            gone = page.locator(".words s[data-i]").count()
            assert gone == sum(span.taken_back for span in thread.spans)
            controls = "".join(page.locator(".words .w .control").all_text_contents())
            assert not re.search("[a-z]", re.sub("<[^>]*>", "", controls))
        width = "Array.from(document.querySelectorAll('.mark'), one => Number(one.getAttribute('width')))"
        assert page.evaluate(width)


def test_a_token_tells_its_log_prob(browser, tmp_path):
    trace = drawn("spawn_join")[0]
    path = tmp_path / "trace.html"
    path.write_text(trace_page(trace, texts_of("spawn_join")))
    span = next(span for span in trace.root.spans if span.origin == "sampled")
    with opened(browser, path) as page:
        page.locator(".words .w.sampled [data-i='0']").first.hover()
        tip = page.locator(".tip").inner_text()
        assert f"id {span.ids[0]} · sampled" in tip
        assert f"log-prob {span.logprobs[0]:.3f}".replace("-0.000", "0.000") in tip.replace("-0.000", "0.000")


def test_text_of_a_model_is_text(browser, report):
    out, _ = report
    with opened(browser, out) as page:
        page.locator(".list .row").last.click()
        page.wait_for_selector(".lanes .name")
        assert page.title() == "Two runs"
        assert page.locator("img").count() == 0
        text = page.locator(".words").inner_text()
        assert "</script><script>document.title='owned'</script>" in text
        assert "⟨U+202E⟩flip⟨U+202C⟩" in text
        assert "\u202e" not in page.content()
    assert NASTY not in out.read_text()


def test_a_phone_shows_all_without_scrolling_sideways_and_the_dark_is_dark(browser, report):
    out, _ = report
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}
    with opened(browser, out, **phone) as page:
        for place in ("#", "#p=0", "#p=2"):
            page.goto(f"{out.as_uri()}{place}")
            page.wait_for_selector(".summary .list .row" if place == "#" else ".lanes .name")
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        assert max(page.evaluate(ground)) < 64
        page.keyboard.press("d")
        assert min(page.evaluate(ground)) > 200


def wide(threads):
    ids = [5] * 20
    spans = [Span(ids=ids, origin="sampled", started_s=0.1 * part, ended_s=0.1 * part + 0.1) for part in (0, 2)]
    fork = Fork(at=1, join_rule="message", children=list(range(1, threads)))
    one = Span(ids=ids, origin="sampled", started_s=0.1, ended_s=0.2)
    below = [Thread(label=f"0.{at}", parent=0, status="finished", spans=[one]) for at in range(threads - 1)]
    every = [Thread(label="0", status="finished", spans=spans, forks=[fork]), *below]
    return Trace(prompt="p", dialect="d", model="m", threads=every, ledger=tally(every, 0.3))


def test_of_a_thousand_threads_only_those_on_screen_are_in_the_document(browser, tmp_path):
    path = tmp_path / "wide.html"
    path.write_text(trace_page(wide(1000), texts_of("spawn_join")))
    with opened(browser, path) as page:
        assert page.locator(".lanes .name").count() < 80
        page.locator(".lanes").focus()
        page.keyboard.press("End")
        page.wait_for_function("() => document.querySelector('.lanes .name.on .label')?.textContent == '0.998'")
        assert page.locator(".lanes .name").count() < 80
        assert page.evaluate("document.querySelectorAll('.link.fork').length") > 10


def test_an_answer_of_ten_megabytes_is_cut_with_a_note(browser, tmp_path):
    path = tmp_path / "long.html"
    path.write_text(trace_page(nasty("words " * 1_700_000)))
    assert path.stat().st_size < 1_000_000
    with opened(browser, path) as page:
        assert page.locator(".cut").first.text_content().strip() == "[10,100,000 characters left out of this page]"
