"""Takes the picture of an audit's page for the documentation, with Debian's Chromium.

distinit audit CACHE --frames FRAMES --out REPORT
python benchmarks/audit_picture.py REPORT/report.html docs/audit.png
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 945  # pixels: the first screen, and a row of frames
COLOURS = 128  # of the PNG: a third of the bytes, and text stays sharp


def main() -> None:
    """Write the first screen of the page as a PNG with few colours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.html of an audit")
    parser.add_argument("out", type=Path, help="PNG file to write")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("chromium is not installed: install Debian's package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(options.report.resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        png = page.screenshot()
        browser.close()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLOURS).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
