"""The pictures of an audit's page in a browser: outliers, the enlarged frame, hostile captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from playwright.sync_api import Browser, Page

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.audit import AuditConfig
from distinit.schemas.frames import FrameGeometry
from distinit.stages.audit import audit

FRAMES, ODD_FRAME, CLASSES = 12, 5, 7
HOSTILE = '<img src=x onerror=alert(1)>"\u202e\x1b[2J'
HOSTILE_LABEL = "</script><script>alert(2)</script>"
SHOWN = '<img src=x onerror=alert(1)>"\\u202e\\x1b[2J.mp4'
LABELS = (HOSTILE_LABEL, "one", "two", "three", "four", "five", "six")
LOGITS = np.array([4, 3, 2, 1, 0, -1, -2], np.float32)
"""The logits of every frame; ODD_FRAME has a tenth of them."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a cache whose hostile video has an outlier; each frame is a grey picture."""
    root = tmp_path_factory.mktemp("pictures")
    teacher = caches.make_teacher("net")
    identity = teacher.identity.model_copy(update={"label_names": LABELS})
    teacher = teacher.model_copy(update={"identity": identity, "fingerprint": identity.fingerprint})
    corpus = caches.Corpus({HOSTILE: FRAMES, "still": FRAMES})
    store = FrameStoreWriter(root / "frames", FrameGeometry(), "0" * 64)
    grey = np.full((FRAMES, 128, 171, 3), 128, np.uint8)
    index_N = np.arange(FRAMES)
    with caches.open_writer(root / "cache", corpus, [teacher]) as writer:
        with store.open_unit(0) as unit:
            for name in corpus.frames:
                file = caches.make_planned(name, 0).file
                unit.append(file.video_id, file.digest, 0, grey, 25.0)
            unit.commit()
        for spec in writer.pending_groups():
            group = GroupWriter(spec)
            for video in spec.videos:
                logits_NC = np.tile(LOGITS, (FRAMES, 1))
                if corpus.name_of(video) == HOSTILE:
                    logits_NC[ODD_FRAME] *= 0.1
                hash_N = caches.hash_of(video.video_id, index_N)
                group.add(video, index_N, index_N, "1/25", hash_N, {"net": logits_NC})
                group.finish_video(caches.outcome_of(video.video_id, FRAMES))
            group.commit()
        writer.finalise()
    store.finalise([0])
    audit(
        AuditConfig(
            cache=str(root / "cache"), frames=str(root / "frames"), out=str(root / "report")
        )
    )
    return root / "report/report.html"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The page at phone width for someone who wants no motion. It must raise no error."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(f"file://{report}")
    page.wait_for_selector("html[data-ready=yes]")
    yield page
    assert problems == []
    context.close()


def test_the_outlier_is_shown_and_its_caption_stays_text(page: Page) -> None:
    (outlier,) = page.locator('[data-role="outliers"] button').all()
    assert outlier.locator("strong").inner_text() == HOSTILE_LABEL
    assert f"frame {ODD_FRAME}" in outlier.inner_text()
    assert outlier.locator("img").get_attribute("alt") == f"{SHOWN}, frame {ODD_FRAME}"
    assert page.locator("img[src=x]").count() == 0


def test_a_frame_is_enlarged_with_its_top_five(page: Page) -> None:
    outlier = page.locator('[data-role="outliers"] button')
    outlier.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#frame")
    assert dialog.is_visible()
    assert dialog.locator("p").inner_text().startswith(f"{SHOWN}, frame {ODD_FRAME}: ")
    assert dialog.locator("img").evaluate("image => image.naturalWidth") > 0
    weights = np.exp(0.1 * LOGITS.astype(np.float64))
    expected = [f"{100 * share:.1f} %" for share in (weights / weights.sum())[:5]]
    cells = dialog.locator("tbody td").all_inner_texts()
    assert (cells[::2], cells[1::2]) == (list(LABELS[:5]), expected)
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert outlier.evaluate("button => button === document.activeElement")


def test_a_phone_shows_pictures_without_scrolling_sideways(page: Page) -> None:
    assert page.locator(".sheet img").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator('[data-role="outliers"] button').click()
    box = page.locator("#frame").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_reduced_motion_is_respected(page: Page) -> None:
    root = "getComputedStyle(document.documentElement)"
    assert page.evaluate(f"{root}.scrollBehavior") == "auto"
    moving = "[...document.querySelectorAll('*')].filter(e => e.getAnimations().length).length"
    assert page.evaluate(moving) == 0
