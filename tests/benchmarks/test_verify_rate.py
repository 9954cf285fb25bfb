"""The benchmark of ``cache verify`` checks a sound cache of the requested size."""

from __future__ import annotations

import json

import pytest
import verify
from click.testing import CliRunner


@pytest.mark.parametrize(("target", "statistics_gb"), [("logits", 0), ("features", 0.004)])
def test_the_rates_of_a_small_cache(target: str, statistics_gb: float) -> None:
    options = ["--megabytes", "5", "--workers", "1,2", "--repeats", "1", "--json"]
    options += ["--target", target]
    ended = CliRunner().invoke(verify.main, options)
    assert ended.exit_code == 0, ended.output
    measured = json.loads(ended.output)
    assert 0.004 < measured["gigabytes"] - statistics_gb < 0.006
    assert list(measured["gigabytes_per_second"]) == [
        "sha256, 1 thread",
        "whole check, 1 thread",
        "whole check, 2 threads",
    ]
