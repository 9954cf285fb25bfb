"""The page of an audit in a browser: the slider, its numbers, the tables, hostile texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml
from helpers import caches
from playwright.sync_api import Browser, Locator, Page

from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.schemas.distill import DistillConfig
from distinit.stages.audit import audit

LABELS = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "red \x1b[31m",
    "turned \u202e txet",
    "</script><img src=x onerror=alert(2)>",
    "cat",
    "猫",
)
POOL = caches.make_teacher("pool", classes=9, target="features")
GRID = caches.make_teacher("grid", classes=12, target="features", pool="grid:2")
HOSTILE = 'a<img src=x onerror=alert(3)>"\u202e\x1b[2J'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of ``alpha`` with hostile labels, ``beta``, and two teachers that store features."""
    root = tmp_path_factory.mktemp("page")
    alpha, beta = caches.TEACHERS
    identity = alpha.identity.model_copy(update={"label_names": LABELS})
    alpha = alpha.model_copy(update={"identity": identity, "fingerprint": identity.fingerprint})
    corpus = caches.Corpus({**caches.CORPUS.frames, HOSTILE: 12}, caches.CORPUS.broken)
    caches.run_all(root / "cache", corpus, [alpha, beta, POOL, GRID])
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> AuditResult:
    return audit(AuditConfig(cache=str(root / "cache"), out=str(root / "report")))


@pytest.fixture
def page(browser: Browser, root: Path, report: AuditResult) -> Iterator[Page]:
    """The page, ready. It must make no request, raise no error and open no dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: problems.append(request.url))
    page.goto(f"file://{root / 'report/report.html'}")
    page.wait_for_selector("html[data-ready=yes]")
    yield page
    assert [text for text in problems if not text.startswith(("data:", "file:"))] == []
    context.close()


def section_of(page: Page, teacher: str) -> Locator:
    return page.locator(f'[data-teacher="{teacher}"]')


def read(section: Locator, role: str) -> str:
    return section.locator(f'[data-role="{role}"]').inner_text()


def query(root: Path, columns: str, where: str = "true") -> tuple[int, ...]:
    """Numbers from the tables of the cache itself."""
    (found,) = duckdb.sql(
        f"SELECT {columns} FROM '{root}/cache/teachers/alpha/confidence/*.parquet' c "
        f"JOIN '{root}/cache/frames/*.parquet' f ON c.row = f.row WHERE {where}"
    ).fetchall()
    return tuple(found)


def test_a_dragged_threshold_shows_the_numbers_of_the_cache(
    page: Page, root: Path, report: AuditResult
) -> None:
    section = section_of(page, "alpha")
    box = section.locator('[data-role="chart"]').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.61 * box["width"], box["y"] + 40, steps=5)
    page.mouse.up()
    value = int(section.locator('[data-role="threshold"]').input_value())
    confidence = report.teachers[0].confidence
    assert confidence is not None
    nats = value * confidence.curve.step_nats
    assert nats == pytest.approx(0.61 * confidence.curve.step_nats * 1024 * 2, rel=0.1)
    assert read(section, "nats") == f"{nats:.3f} nats"
    frames, videos, classes = query(
        root,
        "count(*), count(DISTINCT video_id), count(DISTINCT top1_class)",
        f"entropy_nats <= {nats}",
    )
    everything, all_videos, all_classes = query(
        root, "count(*), count(DISTINCT video_id), count(DISTINCT top1_class)"
    )
    assert 0 < frames < everything
    assert read(section, "kept-frames") == f"{frames} ({100 * frames / everything:.1f} %)"
    assert read(section, "kept-videos") == f"{videos} ({100 * videos / all_videos:.1f} %)"
    assert read(section, "lost-classes") == f"{all_classes - classes} of {all_classes}"
    clips = confidence.curve.clips[value - 1]
    assert read(section, "kept-clips") == f"{100 * clips:.1f} %"
    for row in section.locator('[data-role="class-rows"] tr').all():
        name, count, _, _, kept = row.locator("td").all_inner_texts()
        index = [shown(label) for label in LABELS].index(name)
        expected = query(
            root,
            f"count(*), count(*) FILTER (entropy_nats <= {nats})",
            f"top1_class = {index}",
        )
        assert (int(count), kept) == (expected[0], f"{100 * expected[1] / expected[0]:.1f} %")


def shown(text: str) -> str:
    """A text as the page shows it."""
    return text.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def test_arrow_keys_move_the_threshold_by_one_step(page: Page) -> None:
    section = section_of(page, "beta")
    slider = section.locator('[data-role="threshold"]')
    before = int(slider.input_value())
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert int(slider.input_value()) == before + 1
    page.keyboard.press("End")
    assert "(100.0 %)" in read(section, "kept-frames")
    assert slider.get_attribute("aria-valuetext", timeout=1000) is not None
    page.keyboard.press("Home")
    assert re.match(r"\d+ \(\d+\.\d %\)", read(section, "kept-frames"))


def test_the_yaml_is_a_part_of_a_distill_config(page: Page, report: AuditResult) -> None:
    section = section_of(page, "alpha")
    values = yaml.safe_load(read(section, "yaml"))
    config = DistillConfig.model_validate({"cache": "c", "frames": "f", "out": "o", **values})
    confidence = report.teachers[0].confidence
    assert confidence is not None
    value = int(section.locator('[data-role="threshold"]').input_value())
    target = config.targets[0]
    assert target.filter.max_entropy_nats == value * confidence.curve.step_nats
    assert (target.teacher, target.pick, config.clip.frames) == ("alpha", "random", 8)
    assert config.skip_filtered


def test_the_saved_hours_say_that_their_rate_is_assumed_until_it_is_set(page: Page) -> None:
    section = section_of(page, "alpha")
    assert read(section, "rate") == "(at 100 clips/s: set your own rate)"
    before = read(section, "hours")
    section.locator('[data-role="speed"]').fill("25")
    assert read(section, "rate") == "(at 25 clips/s)"
    assert read(section, "hours") != before
    assert read(section_of(page, "beta"), "rate") == "(at 100 clips/s: set your own rate)"
    section.locator('[data-role="speed"]').fill("")
    assert (read(section, "rate"), read(section, "hours")) == ("", "give the two numbers below")


def test_classes_and_videos_can_be_searched(page: Page) -> None:
    section = section_of(page, "alpha")
    section.locator('[data-role="class-search"]').fill("CAT")
    assert section.locator('[data-role="class-rows"] tr').count() == 1
    assert read(section, "class-count") == "1 of 7 classes"
    section.locator('[data-role="video-search"]').fill("onerror")
    assert section.locator(".ribbon").count() == 1
    assert section.locator(".ribbon .name").inner_text().startswith(shown(HOSTILE))
    section.locator('[data-role="video-search"]').fill("no such video")
    assert section.locator(".ribbon").count() == 0


def test_the_confident_half_has_the_classes_of_the_slider_at_its_start(
    page: Page, root: Path, report: AuditResult
) -> None:
    confidence = report.teachers[0].confidence
    assert confidence is not None
    assert confidence.confident_half is not None
    half = confidence.confident_half
    rows = section_of(page, "alpha").locator(".half tbody tr").all()
    assert len(rows) == half.classes
    total = 0
    for row in rows:
        name, count, share, of_all = row.locator("td").all_inner_texts()[:4]
        index = [shown(label) for label in LABELS].index(name)
        kept, everything = query(
            root,
            f"count(*) FILTER (top1_class = {index}), count(*)",
            f"entropy_nats <= {half.max_entropy_nats}",
        )
        frames, corpus = query(root, f"count(*) FILTER (top1_class = {index}), count(*)")
        assert (int(count), everything) == (kept, half.frames)
        assert share == f"{100 * kept / everything:.1f} %"
        assert of_all == f"{100 * frames / corpus:.1f} %"
        total += kept
    assert total == half.frames


def test_the_first_screen_links_to_each_teacher(page: Page) -> None:
    links = page.locator(".teachers a")
    assert links.all_inner_texts() == ["alpha", "beta", "grid", "pool"]
    for number in (1, 2):
        links.nth(number).click()
        section = page.locator(page.evaluate("location.hash"))
        assert section.locator("h2 code").first.inner_text() == ["beta", "grid"][number - 1]


def test_teachers_with_features_are_on_the_first_screen(page: Page, report: AuditResult) -> None:
    (found,) = (teacher.features for teacher in report.teachers if teacher.record.id == "grid")
    assert found is not None
    table = page.locator(".teachers", has_text="Teachers that store features")
    cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells == [f"{found.norm_median:.4g}", f"{found.effective_rank:.1f} of 3", "0 of 3"]


def test_everything_that_takes_the_focus_has_a_name(page: Page) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("img:not([alt])").count() == 0


def test_hostile_texts_stay_texts(page: Page, root: Path) -> None:
    document = (root / "report/report.html").read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", document)
    assert page.locator("main img[src=x], script").count() == 2, "its data and its script"
    names = section_of(page, "alpha").locator('[data-role="class-rows"] td:first-child')
    assert shown(LABELS[0]) in names.all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(
    scheme: str, browser: Browser, root: Path, report: AuditResult
) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.goto(f"file://{root / 'report/report.html'}")
    page.wait_for_selector("html[data-ready=yes]")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    tables = page.locator(".scroll:has(.teachers)").all()
    assert [t.evaluate("box => box.scrollWidth - box.clientWidth") for t in tables] == [0, 0]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[scheme]
    context.close()
