"""Renders the audit as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distinit.pipeline.reports.html import Markup, data_uri, element, page, table, void_element
from distinit.pipeline.reports.style import STYLE
from distinit.schemas.audit import (
    AuditResult,
    ConfidenceAudit,
    FrameSample,
    TeacherAudit,
    VideoEntropy,
)
from distinit.schemas.output_reports import FidelityReport

__all__ = ["TeacherPictures", "ThemedPlot", "render_report"]


@dataclass(frozen=True, slots=True)
class ThemedPlot:
    """One plot as PNG bytes in both themes."""

    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class TeacherPictures:
    """The pictures of one teacher. ``frame_jpegs``: (video_id, frame_index) -> JPEG bytes."""

    entropy: ThemedPlot
    kept: ThemedPlot
    classes: ThemedPlot
    frame_jpegs: Mapping[tuple[str, int], bytes] = field(default_factory=dict)


def render_report(result: AuditResult, pictures: Mapping[str, TeacherPictures]) -> str:
    """The HTML of the page.

    ``pictures``: by teacher id; teachers without confidence statistics have none.
    """
    sections = [
        _teacher_section(teacher, pictures.get(teacher.record.id)) for teacher in result.teachers
    ]
    return page(
        "Audit of a target cache", STYLE, _header(result), *sections, _failures_section(result)
    )


def _header(result: AuditResult) -> Markup:
    facts = _facts(
        ("Videos read", f"{result.videos - result.failed_videos:,}"),
        ("Failed videos", f"{result.failed_videos:,}"),
        *(
            [("Videos no longer in the corpus", f"{result.gone_videos:,}")]
            if result.gone_videos
            else []
        ),
        ("Frames", f"{result.frames:,}"),
        ("Teachers", f"{len(result.teachers):,}"),
    )
    origin = element("p", result.cache, " · content ", element("code", result.content_digest))
    return element("header", element("h1", "Audit of a target cache"), origin, facts)


def _facts(*pairs: tuple[str, str]) -> Markup:
    """A description list of (name, value) pairs."""
    items = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *items, class_="facts")


def _teacher_section(teacher: TeacherAudit, pictures: TeacherPictures | None) -> Markup:
    parts = [element("h2", "Teacher ", element("code", teacher.record.id)), _identity(teacher)]
    if teacher.confidence is None or pictures is None:
        reason = (
            "This teacher stores features, not logits, so its entropy is not defined."
            if teacher.record.identity.target == "features"
            else "The cache contains no targets of this teacher."
        )
        return element("section", *parts, element("p", reason))
    warnings = () if teacher.answers is None else teacher.answers.warnings
    parts += [element("p", element("strong", "Warning: "), text) for text in warnings]
    return element("section", *parts, *_confidence_parts(teacher, teacher.confidence, pictures))


def _identity(teacher: TeacherAudit) -> Markup:
    """Table of the teacher's identity, and of the precision of its stored targets."""
    record, identity = teacher.record, teacher.record.identity
    shape = identity.preprocessing
    edge = "short edge" if shape.resize_mode == "short_edge" else "both edges"
    rows = [
        ("Architecture", identity.architecture),
        ("Weights, sha256", identity.weights_sha256),
        ("Training of the weights", "not known" if record.recipe is None else str(record.recipe)),
        ("Label space", f"{identity.label_space}, {identity.classes:,} {identity.target}"),
        (
            "Preprocessing",
            f"{edge} to {shape.resize_size} px ({shape.resize}, {shape.interpolation}"
            f"{', antialiased' if shape.antialias else ''}), centre crop {shape.crop_size} px, "
            f"{shape.channel_order.upper()}, mean {_numbers(shape.mean)}, "
            f"std {_numbers(shape.std)}",
        ),
        ("Precision", record.precision),
        ("Encoding", record.encoding),
        ("Precision loss", _loss(record.precision_loss, "none: fp32")),
        ("Encoding loss", _loss(record.fidelity, "not measured")),
        ("Software", ", ".join(f"{name} {version}" for name, version in record.software.items())),
    ]
    return table("Identity", (), rows)


def _loss(report: FidelityReport | None, none: str) -> str:
    if report is None:
        return none
    return (
        f"KL to fp32 {report.mean_kl_nats:.2g} nats on average, {report.max_kl_nats:.2g} at "
        f"most; same top class for {100 * report.top1_agreement:.2f} % of "
        f"{report.frames:,} frames"
    )


def _confidence_parts(
    teacher: TeacherAudit, confidence: ConfidenceAudit, pictures: TeacherPictures
) -> list[Markup]:
    low, median, high = confidence.quartiles_nats
    facts = _facts(
        ("Mean entropy, nats", f"{confidence.mean_entropy_nats:.3f}"),
        ("Quartiles, nats", f"{low:.2f} / {median:.2f} / {high:.2f}"),
        ("Maximum possible, nats", f"{confidence.highest_possible_nats:.2f}"),
        ("Mean top probability", f"{confidence.mean_top1_probability:.3f}"),
        ("Predicted classes", f"{confidence.classes_seen:,}"),
    )
    entropy = (
        "Entropy of single frames: share of frames per bin, and a density estimate. A nat is the "
        "unit of natural logarithms: 0 is certainty, and the right end is a uniform guess"
    )
    return [
        facts,
        element("h3", "How confident is the teacher?"),
        _plot(pictures.entropy, entropy),
        element("h3", "Which share of the frames does a threshold keep?"),
        _plot(pictures.kept, "Share of frames at or below an entropy threshold"),
        element("div", *_kept_tables(confidence), class_="pair"),
        element("h3", "Which classes does the teacher predict?"),
        _plot(pictures.classes, "Classes that are most often the most probable one"),
        *([] if teacher.sheet_note is None else [element("p", "Note: ", teacher.sheet_note)]),
        *_sheet("Most confident frames", confidence.most_confident_frames, pictures),
        *_sheet("Least confident frames", confidence.least_confident_frames, pictures),
        element("h3", "Videos"),
        element(
            "div",
            _video_table("Most confident videos", confidence.most_confident_videos),
            _video_table("Least confident videos", confidence.least_confident_videos),
            class_="pair",
        ),
    ]


def _plot(plot: ThemedPlot, alt: str) -> Markup:
    dark = void_element(
        "source",
        srcset=data_uri(plot.dark, "image/png"),
        media="(prefers-color-scheme: dark)",
    )
    light = void_element("img", src=data_uri(plot.light, "image/png"), alt=alt)
    return element(
        "figure", element("picture", dark, light), element("figcaption", alt), class_="plot"
    )


def _kept_tables(confidence: ConfidenceAudit) -> tuple[Markup, Markup]:
    kept = table(
        "Frames kept by a threshold",
        ("entropy ≤, nats", "frames", "share, %"),
        [
            (f"{row.max_entropy_nats:g}", f"{row.frames:,}", f"{100 * row.fraction:.1f}")
            for row in confidence.kept
        ],
        numeric=(0, 1, 2),
    )
    thresholds = table(
        "Threshold that keeps a share of all stored frames (distillation counts clips)",
        ("share, %", "entropy ≤, nats"),
        [
            (f"{100 * row.keep_fraction:g}", f"{row.max_entropy_nats:.3f}")
            for row in confidence.thresholds
        ],
        numeric=(0, 1),
    )
    return kept, thresholds


def _sheet(
    title: str, samples: Sequence[FrameSample], pictures: TeacherPictures
) -> tuple[Markup, ...]:
    """The sampled frames that the frame store contains; empty if it contains none of them."""
    figures = []
    for sample in samples:
        jpeg = pictures.frame_jpegs.get((sample.video_id, sample.frame_index))
        if jpeg is not None:
            figures.append(_frame(sample, jpeg))
    if not figures:
        return ()
    extreme = title.split()[0].lower()
    caption = (
        f"One frame per video: the {extreme} confident one. At most half of the videos "
        "(rounded up) are shown."
    )
    return element("h3", title), element("p", caption), element("div", *figures, class_="sheet")


def _frame(sample: FrameSample, jpeg: bytes) -> Markup:
    location = f"{sample.path}, frame {sample.frame_index}"
    caption = element(
        "figcaption",
        element("strong", sample.top1_name),
        f" {100 * sample.top1_probability:.1f} %, {sample.entropy_nats:.2f} nats",
        element("small", location),
    )
    image = void_element("img", src=data_uri(jpeg, "image/jpeg"), alt=location, loading="lazy")
    return element("figure", image, caption)


def _video_table(caption: str, videos: Sequence[VideoEntropy]) -> Markup:
    return table(
        caption,
        ("video", "frames", "mean entropy, nats"),
        [(row.path, f"{row.frames:,}", f"{row.mean_entropy_nats:.3f}") for row in videos],
        numeric=(1, 2),
    )


def _failures_section(result: AuditResult) -> Markup:
    if not result.failed_videos:
        return element("section", element("h2", "Failed videos"), element("p", "None."))
    caption = f"{len(result.failures):,} of {result.failed_videos:,}"
    rows = [(row.path, row.error) for row in result.failures]
    return element(
        "section", element("h2", "Failed videos"), table(caption, ("video", "error"), rows)
    )


def _numbers(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)
