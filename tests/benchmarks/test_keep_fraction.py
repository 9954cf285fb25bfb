"""The study of keep_fraction: the quantile over clips keeps the requested share of the clips."""

from __future__ import annotations

import pytest
from keep_fraction import table


def test_only_the_quantile_over_clips_keeps_the_requested_share() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table(seed=1)[2:]]
    assert [row[0] for row in rows] == ["random"] * 3 + ["center"] * 3
    for _, fraction, of_frames, of_clips in rows:
        # A short video has only one clip, which counts for 1 % of all clips drawn.
        assert float(of_clips) == pytest.approx(float(fraction), abs=0.0105)
        assert float(of_frames) < 0.6 * float(fraction)
