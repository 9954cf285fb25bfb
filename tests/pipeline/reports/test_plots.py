"""Figures: valid PNG and PDF files for ordinary, degenerate and hostile input."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.audit.quantiles import KEEP_FRACTIONS, EntropyQuantiles
from distinit.pipeline.audit.samples import VideoNames
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.summary import summarise
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.plots import (
    entropy_density,
    figure_classes,
    figure_entropy,
    figure_kept,
)
from distinit.schemas.audit import AuditConfig, ClassCount, ConfidenceAudit, EntropyHistogram


def audit_of(entropy_nats_N: np.ndarray) -> ConfidenceAudit:
    count = len(entropy_nats_N)
    scan = ConfidenceScan(1, 1000)
    zeros = np.zeros(count, np.int64)
    scan.add(
        ConfidenceRows(zeros, zeros, np.arange(count), entropy_nats_N, zeros, np.full(count, 0.5))
    )
    low, median, high = np.quantile(entropy_nats_N, (0.25, 0.5, 0.75)).tolist()
    thresholds = np.quantile(entropy_nats_N, KEEP_FRACTIONS).tolist()
    quantiles = EntropyQuantiles((low, median, high), tuple(thresholds))
    names = VideoNames(["v"], ["v.mp4"])
    return summarise(
        scan, quantiles, np.zeros(scan.bins.count), names, (), AuditConfig(cache="c", out="o")
    )


def corner(png: bytes) -> tuple[int, ...]:
    pixel = Image.open(io.BytesIO(png)).convert("RGB").getpixel((1, 1))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("entropies", [[1.0, 2.0, 2.5, 6.0], [0.0], [3.0] * 50, [0.0, 6.9]])
def test_any_spread_of_entropies_can_be_drawn(entropies: list[float]) -> None:
    confidence = audit_of(np.array(entropies))
    for figure_of in (figure_entropy, figure_kept):
        png = figure_png(figure_of(confidence))
        assert Image.open(io.BytesIO(png)).size == (1152, 576)
        assert corner(png) == (255, 255, 255)
        assert figure_pdf(figure_of(confidence)).startswith(b"%PDF-")


def test_the_same_data_gives_the_same_bytes() -> None:
    confidence = audit_of(np.linspace(0.5, 6, 40))
    assert figure_png(figure_entropy(confidence)) == figure_png(figure_entropy(confidence))
    assert figure_pdf(figure_entropy(confidence)) == figure_pdf(figure_entropy(confidence))


@pytest.mark.parametrize("name", ["$\\frac{1$", "<script>", "a\nb\x00", "猫 \u202e", "", "x" * 500])
def test_any_class_name_can_be_drawn(name: str) -> None:
    classes = [ClassCount(class_index=0, name=name, frames=3, fraction=1.0)]
    image = Image.open(io.BytesIO(figure_png(figure_classes(classes))))
    assert image.width == 1152


def test_the_density_matches_the_distribution_of_the_frames() -> None:
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


def test_frames_in_one_bin_have_no_density() -> None:
    grid, density = entropy_density(EntropyHistogram(edges_nats=(0, 1, 2), frames=(0, 7)))
    assert (len(grid), len(density)) == (0, 0)


def test_the_density_is_reflected_at_both_ends() -> None:
    edges = np.linspace(0, 7, 65)
    frames = [0] * 64
    frames[0] = frames[62] = 500  # at 0, and at the highest possible entropy, 6.9
    grid, density = entropy_density(
        EntropyHistogram(edges_nats=tuple(edges), frames=tuple(frames)), 6.9
    )
    assert (grid[0], grid[-1]) == (0, 6.9)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
