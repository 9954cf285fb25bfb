"""Renders the audit as one self-contained HTML page, from the templates next to this module."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import jinja2
from markupsafe import Markup

from distinit.pipeline.reports.charts import density_chart, drift_chart, label_chart, pair_chart
from distinit.pipeline.reports.details import PairPictures, TeacherDetails
from distinit.pipeline.reports.feature_charts import spectrum_chart
from distinit.pipeline.reports.page_data import page_data
from distinit.pipeline.training.workload import clips_of_epoch
from distinit.schemas.audit import AuditConfig, AuditResult, TeacherAudit
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.training import OptimizerConfig, RuntimeConfig
from distinit.schemas.wording import printable

__all__ = ["render_report"]

_ASSUMED_CLIPS_PER_SECOND = 100.0  # of no particular machine; the page says so


def render_report(
    result: AuditResult,
    details: Mapping[str, TeacherDetails],
    pairs: Sequence[PairPictures],
    config: AuditConfig,
) -> str:
    """The HTML of the page.

    ``details``: by teacher id; teachers without confidence statistics have none. ``pairs``: of
    ``result.pairs``. Texts from the
    cache are escaped: they are neither HTML, nor can they control a terminal or turn the direction
    of the text. The page loads nothing, and runs no script but its own.
    """
    environment = _environment()
    script = _source(environment, "audit.js")
    clip = _clip(config, result.videos - result.failed_videos)
    numbers = {teacher.record.id: number for number, teacher in enumerate(result.teachers, 1)}
    charts = {
        teacher.record.id: density_chart(teacher.confidence, numbers[teacher.record.id])
        for teacher in result.teachers
        if teacher.confidence is not None
    }
    labels = {
        teacher.record.id: label_chart(teacher.labels, teacher.confidence.highest_possible_nats)
        for teacher in result.teachers
        if teacher.labels is not None and teacher.confidence is not None
    }
    return environment.get_template("audit.html.j2").render(
        result=result,
        calibrated=bool(labels),
        numbers=numbers,
        labels=labels,
        charts=charts,
        spectra={
            teacher.record.id: spectrum_chart(teacher.features)
            for teacher in result.teachers
            if teacher.features is not None
        },
        comparisons=[
            pair_chart(pair, has_pictures=bool(found.only_first or found.only_second))
            for pair, found in zip(result.pairs, pairs, strict=True)
        ],
        clip=clip,
        drifts=[drift_chart(drift) for drift in result.drifts],
        identity=_identity,
        pictures={name: bool(found.near) for name, found in details.items()},
        ribbons_left_out={name: found.ribbons_left_out for name, found in details.items()},
        data=Markup(page_data(result, details, pairs, clip)),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(_source(environment, "audit.css")),
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("distinit.pipeline.reports", "templates"),
        autoescape=True,
        finalize=_finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(value: object) -> object:
    return value if isinstance(value, Markup) else printable(value)


def _source(environment: jinja2.Environment, name: str) -> str:
    """The text of a file next to the templates, which is part of this package."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _clip(config: AuditConfig, videos: int) -> dict[str, object]:
    """How the page counts clips, and what the hours of a distillation depend on."""
    optimizer, runtime = OptimizerConfig(), RuntimeConfig()
    return {
        "frames": config.clip_frames,
        "pick": config.pick,
        "k": config.pick_frames,
        "epochs": optimizer.epochs,
        "clips_per_epoch": clips_of_epoch(optimizer, runtime, videos),
        "clips_per_second": f"{config.clips_per_second or _ASSUMED_CLIPS_PER_SECOND:g}",
        "rate_assumed": config.clips_per_second is None,
    }


def _identity(teacher: TeacherAudit) -> Iterator[tuple[str, str]]:
    """(name, value): the identity of a teacher, and the precision of its stored targets."""
    record, identity = teacher.record, teacher.record.identity
    shape = identity.preprocessing
    edge = "short edge" if shape.resize_mode == "short_edge" else "both edges"
    yield "Architecture", identity.architecture
    yield "Weights, sha256", identity.weights_sha256
    yield "Training of the weights", "not known" if record.recipe is None else str(record.recipe)
    yield "Label space", f"{identity.label_space}, {identity.classes:,} {identity.target}"
    yield (
        "Preprocessing",
        f"{edge} to {shape.resize_size} px ({shape.resize}, {shape.interpolation}"
        f"{', antialiased' if shape.antialias else ''}), centre crop {shape.crop_size} px, "
        f"{shape.channel_order.upper()}, mean {_numbers(shape.mean)}, "
        f"std {_numbers(shape.std)}",
    )
    yield "Precision", record.precision
    yield "Encoding", record.encoding
    encoding_loss, precision_loss = record.losses
    yield "Precision loss", _loss(precision_loss, "none: fp32")
    yield "Encoding loss", _loss(encoding_loss, "not measured")
    yield "Software", ", ".join(f"{name} {version}" for name, version in record.software.items())


def _loss(report: FidelityReport | FeatureFidelityReport | None, none: str) -> str:
    if report is None:
        return none
    if isinstance(report, FeatureFidelityReport):
        return f"{report.brief()} of {report.frames:,} frames"
    return (
        f"KL to fp32 {report.mean_kl_nats:.2g} nats on average, {report.max_kl_nats:.2g} at "
        f"most; same top class for {100 * report.top1_agreement:.2f} % of "
        f"{report.frames:,} frames"
    )


def _numbers(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)
