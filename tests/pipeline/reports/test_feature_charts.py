"""The spectrum of features on the audit's page."""

from __future__ import annotations

from distinit.pipeline.reports.feature_charts import spectrum_chart
from distinit.schemas.audit_features import FeatureAudit


def found(**changes: object) -> FeatureAudit:
    values: dict[str, object] = {
        "vectors": 9,
        "channels": 3,
        "norm_min": 1,
        "norm_median": 2,
        "norm_max": 3,
        "effective_rank": 1.5,
        "participation_ratio": 1.2,
        "norms": {"edges": [0, 4], "vectors": [9]},
        "spectrum": [0.9, 0.09, 0.01],
    }
    return FeatureAudit.model_validate(values | changes)


def test_the_axis_ends_at_the_decade_of_the_smallest_share() -> None:
    chart = spectrum_chart(found())
    assert chart is not None
    assert chart.ticks == ((0.0, "100 %"), (104.0, "10 %"), (208.0, "1 %"))
    assert chart.line == "M0.0 4.8L360.0 108.8L720.0 208.0"


def test_shares_of_0_are_at_the_bottom() -> None:
    chart = spectrum_chart(found(spectrum=[1.0, 0.0]))
    assert chart is not None
    assert chart.line == "M0.0 0.0L720.0 208.0"
    assert chart.ticks[-1] == (208.0, "1e-06 %")


def test_without_covariances_there_is_no_chart() -> None:
    assert spectrum_chart(found(effective_rank=None, spectrum=[])) is None
