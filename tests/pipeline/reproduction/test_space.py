"""The disk space of a reproduction, before and after its corpus is extracted."""

from __future__ import annotations

from pathlib import Path

from helpers.reproductions import expanded

from distinit.pipeline.reproduction.layout import Layout
from distinit.pipeline.reproduction.space import disk_space
from distinit.pipeline.students.heads import new_student
from distinit.schemas.training import StudentConfig

DISTINIT = {"init": "distinit", "distill": {"pick": "center"}}


def test_sizes_are_estimated_from_frames_classes_and_weights() -> None:
    student = new_student(StudentConfig(name="tiny_r2plus1d_10"), {"labels": 1}, seed=0)
    weights = sum(parameter.numel() for parameter in student.parameters())
    assert disk_space(expanded(DISTINIT), 1_000, set()) == {
        "targets of the corpus": 1_000 * 10 * 2,  # the teacher has 10 classes, stored as float16
        "frames of the corpus": round(1_000 * 64 * 85 * 8_500 / (128 * 171)),
        "frames-hmdb51": None,
        "training runs": 2 * weights * 4 * 5,  # student, and two checkpoints with momentum
    }


def test_without_a_number_of_frames_the_corpus_is_not_known() -> None:
    sizes = disk_space(expanded(DISTINIT), None, set())
    assert sizes["targets of the corpus"] is None
    assert sizes["frames of the corpus"] is None


def test_what_exists_is_measured(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data", tmp_path / "out")
    for folder, size in (
        (layout.cache, 30),
        (layout.frames, 20),
        (layout.labelled_frames("hmdb51"), 7),
    ):
        (folder / "unit").mkdir(parents=True)
        (folder / "unit" / "file").write_bytes(bytes(size))
    sizes = disk_space(expanded(DISTINIT, layout=layout), 1_000, {"extract", "frames-hmdb51"})
    measured = {what: size for what, size in sizes.items() if what != "training runs"}
    assert measured == {
        "targets of the corpus": 30,
        "frames of the corpus": 20,
        "frames-hmdb51": 7,
    }
