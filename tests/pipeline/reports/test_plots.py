"""Plots: real PNGs for ordinary, degenerate and hostile input."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.reports.plots import (
    DARK,
    LIGHT,
    entropy_density,
    plot_classes,
    plot_entropy,
    plot_kept,
    printable,
)
from distinit.pipeline.reports.scan import ConfidenceRows, ConfidenceScan
from distinit.pipeline.reports.summary import VideoNames, summarise
from distinit.schemas.audit import AuditConfig, ClassCount, ConfidenceAudit, EntropyHistogram


def audit_of(entropy_N: np.ndarray) -> ConfidenceAudit:
    count = len(entropy_N)
    scan = ConfidenceScan(1, 1000)
    zeros = np.zeros(count, np.int64)
    scan.add(ConfidenceRows(zeros, np.arange(count), entropy_N, zeros, np.full(count, 0.5)))
    return summarise(scan, VideoNames(["v"], ["v.mp4"]), (), AuditConfig(cache="c", out="o"))


def corner(png: bytes) -> tuple[int, ...]:
    pixel = Image.open(io.BytesIO(png)).convert("RGB").getpixel((1, 1))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("entropies", [[1.0, 2.0, 2.5, 6.0], [0.0], [3.0] * 50, [0.0, 6.9]])
def test_any_spread_of_entropies_can_be_drawn(entropies: list[float]) -> None:
    confidence = audit_of(np.array(entropies))
    for plot in (plot_entropy, plot_kept):
        light, dark = plot(confidence, LIGHT), plot(confidence, DARK)
        assert Image.open(io.BytesIO(light)).size == (1152, 576)
        assert (corner(light), corner(dark)) == ((255, 255, 255), (0x16, 0x1B, 0x22))


def test_plots_repeat_to_the_byte() -> None:
    confidence = audit_of(np.linspace(0.5, 6, 40))
    assert plot_entropy(confidence, LIGHT) == plot_entropy(confidence, LIGHT)


@pytest.mark.parametrize("name", ["$\\frac{1$", "<script>", "a\nb\x00", "猫 \u202e", "", "x" * 500])
def test_class_names_are_only_text(name: str) -> None:
    classes = [ClassCount(class_index=0, name=name, frames=3, fraction=1.0)]
    image = Image.open(io.BytesIO(plot_classes(classes, LIGHT)))
    assert image.width == 1152


def test_labels_are_one_short_line() -> None:
    assert printable("tabby cat") == "tabby cat"
    assert printable("a\nb") == "a?b"
    assert printable("x" * 40) == "x" * 33 + "…"


def test_density_is_that_of_the_frames() -> None:
    edges = np.linspace(0, 6.4, 65)
    centres = (edges[:-1] + edges[1:]) / 2
    frames = np.rint(1e6 * np.exp(-(((centres - 3) / 0.5) ** 2) / 2)).astype(int)
    grid, density = entropy_density(
        EntropyHistogram(edges_nats=tuple(edges), frames=tuple(frames.tolist()))
    )
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    assert grid[density.argmax()] == pytest.approx(3, abs=0.06)
    normal = np.exp(-(((grid - 3) / 0.5) ** 2) / 2) / (0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density, normal, atol=0.02)


def test_one_bin_has_no_density() -> None:
    grid, density = entropy_density(EntropyHistogram(edges_nats=(0, 1, 2), frames=(0, 7)))
    assert (len(grid), len(density)) == (0, 0)
