"""Tables and picture of a probe with invented numbers and names that could break them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.reports.probe_picture import _apart, draw_probe
from distinit.pipeline.reports.probe_tables import csv_table, markdown_page
from distinit.schemas.probe import (
    GridPoint,
    KnnScore,
    LowShotScore,
    Measures,
    ProbeResult,
    ProbeRow,
    Score,
)


def measures(top1: float) -> Measures:
    interval = (top1 - 4, top1 + 4)
    return Measures(
        knn=tuple(
            KnnScore(top1=top1, interval=interval, k=k, used_k=min(k, 90), temperature=0.07)
            for k in (20, 200)
        ),
        retrieval={"1": top1, "5": top1 + 20},
        linear=Score(top1=top1 + 5, interval=(top1 + 1, top1 + 9)),
        learning_rate=0.01,
        weight_decay=0.001,
        low_shot=(
            LowShotScore(shots=1, top1_mean=top1 / 2, top1_sd=1.25, top1=(top1 / 2,)),
            LowShotScore(shots=None, top1_mean=top1 + 5, top1_sd=None, top1=(top1 + 5,)),
        ),
        grid=(
            GridPoint(
                learning_rate=0.01,
                weight_decay=0.001,
                held_out_top1=50,
                held_out_loss_nats=1.5,
                test_top1=top1,
            ),
        ),
    )


def result(*rows: ProbeRow) -> ProbeResult:
    return ProbeResult(
        dataset="csv",
        dataset_digest="0" * 64,
        protocol="vmz-10",
        classes=9,
        train_videos=90,
        test_videos=45,
        undecodable=("torn.mp4",),
        chance=100 / 9,
        held_out_videos=18,
        short_classes={"1": (), "20": ("hop", "run")},
        rows=rows,
        files={"table": "out/probe.csv", "picture": "out/probe.png"},
    )


RANDOM = ProbeRow(name="random init", kind="random", measures=measures(20), feature_dim=8)
MISSING = ProbeRow(name="inflated ImageNet", kind="inflated", missing="no weights")
HOSTILE = ProbeRow(
    name="distinit:a|b$x_{$\n<img>\x1b[2J" + "long/" * 9 + "run", kind="init", measures=measures(40)
)
TEACHER = ProbeRow(name="teacher t", kind="teacher", measures=measures(60), absent_videos=2)
WHOLE = result(RANDOM, MISSING, HOSTILE, TEACHER)


def test_the_table_shows_intervals_and_deviations() -> None:
    head, random, missing, hostile, _ = WHOLE.table()
    assert head == ["features", "kNN 20", "R@1", "R@5", "1 per class", "linear, all"]
    assert random == ["random init", "20.0 [16-24]", "20.0", "40.0", "10.0 ±1.2", "25.0 [21-29]"]
    assert missing == ["inflated ImageNet", "-", "-", "-", "-", "-"]
    assert hostile[0] == "..." + HOSTILE.name[-25:]


def test_the_notes_say_what_is_missing_capped_or_counted_as_wrong() -> None:
    text = WHOLE.summary()
    assert "9 classes, 90 training videos, 45 test videos, vmz-10; top-1 in percent" in text
    assert "chance 11.1" in text
    assert "could not be decoded: torn.mp4" in text
    assert text.count("kNN: k 200 is capped at the 90 training videos") == 1
    assert "inflated ImageNet: no weights" in text
    assert "teacher t: no features of 2 videos; for testing they count as wrong" in text
    assert "2 classes with fewer than 20 training videos, all of which are used: hop, run" in text
    assert "fewer than 1 " not in text
    assert "\x1b" not in text
    assert text.endswith("out/probe.csv\nout/probe.png")


def test_the_csv_has_every_number_once() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(WHOLE))))
    of_random = [row for row in rows if row["features"] == "random init"]
    assert [(row["measure"], row["setting"], row["percent"]) for row in of_random] == [
        ("knn", "k=20 T=0.07", "20.0"),
        ("knn", "k=200 T=0.07", "20.0"),
        ("retrieval", "k=1", "20.0"),
        ("retrieval", "k=5", "40.0"),
        ("linear", "LR=0.01 WD=0.001", "25.0"),
        ("low shot", "n=1", "10.0"),
        ("low shot", "n=all", "25.0"),
    ]
    assert (of_random[4]["low"], of_random[4]["high"]) == ("21.0", "29.0")
    assert [row["sd"] for row in of_random[-2:]] == ["1.25", ""]
    (missing,) = [row for row in rows if row["kind"] == "inflated"]
    assert (missing["measure"], missing["setting"]) == ("missing", "no weights")
    assert len(rows) == 3 * 7 + 1


def test_names_cannot_break_the_page() -> None:
    page = markdown_page(WHOLE)
    tables = [line for line in page.splitlines() if line.startswith("|")]
    cells = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in tables]
    assert cells == [7] * 6 + [5] * 6 + [4] * 5
    assert "\x1b" not in page
    assert "\\<img\\>" in page
    assert "distinit:a\\|b\\$x" in page, "the page has the whole names"


def test_the_picture_shows_every_measured_row_in_its_colour() -> None:
    with Image.open(io.BytesIO(draw_probe(WHOLE))) as image:
        assert image.size == (1725, 510)
        pixels_NC = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x84, 0x90, 0xA0), (0x1F, 0x5F, 0xA8), (0x1D, 0x24, 0x30)):
        assert int((pixels_NC == colour).all(axis=1).sum()) > 3000, colour
    inflated = (0xE0, 0x8E, 0x2B)
    assert int((pixels_NC == inflated).all(axis=1).sum()) == 0


def test_a_probe_without_measured_rows_still_has_tables_and_a_picture() -> None:
    empty = result(MISSING)
    assert empty.table() == [["features"], ["inflated ImageNet"]]
    assert "no weights" in markdown_page(empty)
    assert draw_probe(empty).startswith(b"\x89PNG")


def test_names_of_curves_keep_a_distance_and_their_order() -> None:
    step = 0.062 * 100
    assert _apart([10, 50, 90], 100) == [10, 50, 90]
    assert _apart([50, 50, 49], 100) == pytest.approx([49 + step, 49 + 2 * step, 49])
    crowded = _apart([99, 100, 98, 0], 100)
    assert crowded == pytest.approx([100 - step, 100, 100 - 2 * step, 0])
