"""How soon a browser shows the page of an audit, and how soon its slider answers a key.

python benchmarks/page_times.py REPORT/report.html
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 900  # pixels
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
NEXT_FRAME = "new Promise((done) => requestAnimationFrame(() => done(performance.now())))"


@dataclass(frozen=True, slots=True)
class PageTimes:
    """Times of a page, from the start of its navigation."""

    first_paint_seconds: float
    slider_seconds: float
    """Until the browser is about to paint the answer to the first key."""


def page_times(report: Path) -> PageTimes:
    """Open the page in Debian's Chromium; SystemExit if that or the slider is missing.

    The key is pressed as soon as the page is ready. The time until its answer includes the way
    from Playwright to the browser and back.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("chromium is not installed: install Debian's package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready=yes]")
        shown = page.locator('[data-role="nats"]').first
        before = shown.text_content()
        page.locator('[data-role="threshold"]').first.press("ArrowLeft")
        answered_ms = page.evaluate(NEXT_FRAME)
        if shown.text_content() == before:
            sys.exit("the slider does not answer the left arrow key")
        first_paint_ms = page.evaluate(FIRST_PAINT)
        browser.close()
    return PageTimes(first_paint_ms / 1000, answered_ms / 1000)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.html of an audit")
    times = page_times(parser.parse_args().report)
    print(f"first paint {times.first_paint_seconds:.2f} s, slider {times.slider_seconds:.2f} s")


if __name__ == "__main__":
    main()
