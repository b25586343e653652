"""A real Chromium, driven by Playwright; tests that need one are skipped where there is none."""

import shutil
from contextlib import contextmanager

import pytest

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "needs playwright and a Chromium: pip install playwright, apt-get install chromium"


@contextmanager
def chromium():
    """A headless browser."""
    api = pytest.importorskip("playwright.sync_api", reason=MISSING)
    if PATH is None:
        pytest.skip(MISSING)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, place="", **options):
    """A page from disk; afterwards, it must have raised no error and have asked for nothing else."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("request", lambda request: request.url.startswith(("file:", "blob:", "data:")) or wrong.append(request.url))
    page.goto(f"{path.as_uri()}{place}")
    page.wait_for_selector(".summary .list .row, .lanes .name", timeout=60_000)
    yield page
    page.close()
    assert not wrong
