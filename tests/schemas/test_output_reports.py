"""Warnings of what was measured of a teacher's outputs."""

from __future__ import annotations

import pytest

from distinit.schemas.output_reports import FeatureFidelityReport


@pytest.mark.parametrize(("error", "warned"), [(2e-5, False), (0.01, False), (0.02, True)])
def test_an_encoding_that_loses_the_direction_of_features_is_warned_of(
    error: float, warned: bool
) -> None:
    report = FeatureFidelityReport(
        frames=9,
        mean_cosine_error=error,
        max_cosine_error=1,
        mean_relative_error=0.1,
        max_relative_error=1,
    )
    assert [f"a cosine error of {error:.2g} on average" in line for line in report.warnings] == (
        [True] if warned else []
    )
