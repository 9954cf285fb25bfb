"""The steps that fill the cells: which exist, what each needs, and their configurations.

Pure: nothing is read or written. Cells that need the same run share it, because a run's name says
everything about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distinit.pipeline.reproduction.layout import Layout
from distinit.pipeline.reproduction.step import (
    Need,
    Step,
    UnavailableError,
    configure,
    divided,
    present,
)
from distinit.schemas.base import PLUGIN
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.frames import FlowConfig, FramesConfig
from distinit.schemas.reproduce import (
    Cell,
    DatasetName,
    DatasetSource,
    MakeDataConfig,
    ScaleConfig,
    StudentRole,
    TeacherRole,
    TeacherSource,
    Variant,
)

__all__ = ["StepBuilder", "teacher_needs"]

_SHORT_LOSS = {"cross_entropy": "ce", "mse": "mse"}
_MSE_RATE = 0.1
"""Learning rate of MSE, relative to that of cross entropy (paper section 4.3)."""
_LONG = 8
"""Clips of more frames than this are long."""


class StepBuilder:
    """Creates the steps of cells at one scale. ``steps``: name -> step, in an order of execution.

    ``listed``: whether the corpus comes with its list.
    """

    def __init__(self, scale: ScaleConfig, layout: Layout, *, listed: bool) -> None:
        self._scale = scale
        self._layout = layout
        self._listed = listed
        self._teachers: dict[TeacherRole, TeacherSource] = {}
        self.steps: dict[str, Step] = {}

    @property
    def teachers(self) -> Mapping[TeacherRole, TeacherSource]:
        """The teachers that some cell is distilled from."""
        return self._teachers

    def finetuned(self, cell: Cell, split: int, seed: int, rate: float | None) -> str:
        """Add the finetune run of a cell and all that it needs; its name.

        ``rate``: its learning rate, None: that of the scale's settings. Raises UnavailableError,
        and ConfigError if the settings of the scale are invalid.
        """
        dataset = self._dataset(cell.dataset)
        start, init, after, needs = self._init(cell, seed)
        suffix = "" if rate is None else f"-lr{rate:g}"
        name = f"finetune-{cell.dataset}-split{split}-{start}-s{seed}{suffix}"
        settings = self._scale.scratch if cell.init == "scratch" else self._scale.finetune
        values = {
            **self._clip_values(cell),
            **self._dataset_values(cell.dataset, dataset, split),
            "init": init,
            "student.name": self._student(cell.student),
            "student.in_channels": 2 if cell.input == "flow" else 3,
            "evaluation": self._scale.protocols.standard.model_dump(),
            "runtime.seed": seed,
            "out": str(self._layout.run(name)),
        }
        if rate is not None:
            values["optimizer.learning_rate"] = rate
        frames = self._labelled_frames(cell.dataset, dataset)
        config = configure(FinetuneConfig, settings, values)
        self._add(
            Step(
                name,
                "finetune",
                divided(config, self._parts(cell)),
                (*self._data(), *after, frames),
                (*needs, *self._splits_needs(dataset)),
            )
        )
        return name

    def evaluated(self, cell: Cell, finetuned: str) -> str:
        """Add the dense evaluation of a finetune run; its name."""
        run = self.steps[finetuned].finetune_config
        layout, flow = self._layout, cell.input == "flow"
        store = layout.labelled_flow if flow else layout.labelled_frames
        student = self._student(cell.student)
        protocol = self._scale.protocols.dense.protocol
        name = f"evaluate-{finetuned.removeprefix('finetune-')}-{protocol}"
        config = EvaluateConfig(
            run=str(layout.run(finetuned)),
            frames=str(store(cell.dataset)),
            student=student if student.startswith(PLUGIN) else None,
            evaluation=self._scale.protocols.dense,
            batch_size=run.runtime.batch_size,
            device=run.runtime.device,
            compute=ComputeConfig(
                workers=run.runtime.workers,
                gpus_per_worker=run.runtime.gpus_per_worker,
                ray_address=run.runtime.ray_address,
            ),
        )
        self._add(Step(name, "evaluate", config, (finetuned,)))
        return name

    def with_teachers(self, present: Mapping[TeacherRole, bool]) -> dict[str, Step]:
        """The steps, with an extraction that runs the teachers whose weights are present."""
        extract = self.steps.get("extract")
        if extract is None:
            return self.steps
        chosen = {role: t for role, t in self._teachers.items() if present.get(role, True)}
        if not chosen:
            return self.steps
        config = self._extract_config(chosen)
        return {**self.steps, "extract": replace(extract, config=config)}

    def _init(self, cell: Cell, seed: int) -> tuple[str, str, tuple[str, ...], tuple[Need, ...]]:
        """(name of the start, value of ``init``, steps before, needs)."""
        suffix = _suffix(cell)
        if cell.distill is not None:
            run = self._distilled(cell, cell.distill, seed)
            stem = run.removeprefix("distill-").removesuffix(f"-s{seed}")
            return stem, f"distinit:{self._layout.run(run)}", (run,), ()
        if cell.init == "supervised":
            run = self._pretrained(cell, seed)
            file = self._layout.run(run) / "student.safetensors"
            return f"{cell.student}-supervised{suffix}", f"file:{file}", (run,), ()
        self._student(cell.student)
        if cell.inflate is None:
            return f"{cell.student}-scratch{suffix}", "scratch", (), ()
        start = f"{cell.student}-inflated-{cell.inflate}{suffix}"
        source = present(self._scale.inflation.get(cell.inflate), f"2D network {cell.inflate}")
        if source.weights is None:
            run = self._distilled_image(cell.inflate, str(source.student), seed)
            file = self._layout.run(run) / "student.safetensors"
            return start, f"inflated:{file}", (run,), ()
        need = Need(source.weights, "weights", f"2D network trained on {cell.inflate}, to inflate")
        file = self._layout.data / source.weights
        return start, f"inflated:{file}", self._data(), (need,)

    def _distilled_image(self, role: TeacherRole, student: str, seed: int) -> str:
        """Add the distillation of an image network, with clips of one frame."""
        values = {"clip.frames": 1, "frames": str(self._layout.frames), "student.name": student}
        variant = Variant(teachers=(role,), pick="center")
        return self._distill_step(f"distill-image-{role}-s{seed}", variant, seed, values, 1)

    def _distilled(self, cell: Cell, variant: Variant, seed: int) -> str:
        """Add the distillation of a cell's student."""
        is_flow = cell.input == "flow"
        values = {
            **self._clip_values(cell),
            "frames": str(self._layout.flow if is_flow else self._layout.frames),
            "student.name": self._student(cell.student),
            "student.in_channels": 2 if is_flow else 3,
        }
        name = f"distill-{cell.student}-{_variant_name(variant)}{_suffix(cell)}-s{seed}"
        return self._distill_step(name, variant, seed, values, self._parts(cell))

    def _distill_step(
        self, name: str, variant: Variant, seed: int, values: dict[str, Any], parts: int
    ) -> str:
        sources = {role: self._teacher(role) for role in variant.teachers}
        values = {
            **values,
            "cache": str(self._layout.cache),
            "targets": [_target(role, variant) for role in variant.teachers],
            "runtime.seed": seed,
            "out": str(self._layout.run(name)),
        }
        config = configure(DistillConfig, self._scale.distill, values)
        if variant.loss == "mse":
            values["optimizer.learning_rate"] = config.optimizer.learning_rate * _MSE_RATE
            config = configure(DistillConfig, self._scale.distill, values)
        after = self._flow() if config.student.in_channels == 2 else self._extract()
        needs = [need for role, t in sources.items() for need in teacher_needs(role, t)]
        self._teachers.update(sources)
        self._add(Step(name, "distill", divided(config, parts), (after,), tuple(needs)))
        return name

    def _pretrained(self, cell: Cell, seed: int) -> str:
        """Add the training on the labels of the corpus."""
        corpus, layout = self._scale.corpus, self._layout
        if self._scale.supervised is not None or corpus.listing is None:
            reason = self._scale.supervised
            raise UnavailableError("the corpus has no labels" if reason is None else reason.absent)
        name = f"pretrain-{cell.student}{_suffix(cell)}-s{seed}"
        values = {
            **self._clip_values(cell),
            "dataset.root": str(layout.data / corpus.root),
            "dataset.splits": str(layout.corpus_labels),
            "init": "scratch",
            "student.name": self._student(cell.student),
            "frames": str(layout.frames),
            "evaluation": self._scale.protocols.standard.model_dump(),
            "runtime.seed": seed,
            "out": str(layout.run(name)),
        }
        need = Need(corpus.listing, "labels", f"labels of {corpus.title}: path,label,split")
        config = divided(configure(FinetuneConfig, self._scale.pretrain, values), self._parts(cell))
        self._add(Step(name, "finetune", config, (self._extract(),), (need,)))
        return name

    # Data and stores

    def _data(self) -> tuple[str, ...]:
        if self._scale.make_data is None:
            return ()
        self._add(Step("data", "data", MakeDataConfig(out=str(self._layout.data))))
        return ("data",)

    def _extract(self) -> str:
        if "extract" not in self.steps:
            corpus = self._scale.corpus
            need = Need(corpus.root, "corpus", f"videos of {corpus.title}")
            config = self._extract_config(self._all_teachers())
            self._add(Step("extract", "extract", config, self._data(), (need,)))
        return "extract"

    def _all_teachers(self) -> dict[TeacherRole, TeacherSource]:
        found = self._scale.teachers.items()
        return {role: source for role, source in found if isinstance(source, TeacherSource)}

    def _extract_config(self, teachers: Mapping[TeacherRole, TeacherSource]) -> ExtractConfig:
        layout = self._layout
        folder = layout.data / self._scale.corpus.root
        values = {
            "videos": str(layout.corpus_list if self._listed else folder),
            "teachers": [self._request(role, source) for role, source in teachers.items()],
            "cache": str(layout.cache),
            "frames": str(layout.frames),
            "geometry": self._scale.geometry.model_dump(),
        }
        return configure(ExtractConfig, self._scale.extract, values)

    def _request(self, role: TeacherRole, source: TeacherSource) -> dict[str, str]:
        request = {"name": source.name, "id": role}
        if source.weights is not None:
            request["weights"] = str(self._layout.data / source.weights)
        return request

    def _flow(self) -> str:
        layout = self._layout
        config = FlowConfig(
            frames=str(layout.frames), out=str(layout.flow), flow_range=self._scale.flow_range
        )
        self._add(Step("flow", "flow", config, (self._extract(),)))
        return "flow"

    def _labelled_frames(self, name: DatasetName, source: DatasetSource) -> str:
        step = f"frames-{name}"
        config = FramesConfig(
            videos=str(self._layout.data / source.root),
            out=str(self._layout.labelled_frames(name)),
            geometry=self._scale.geometry,
        )
        need = Need(source.root, "dataset", f"videos of {source.title}")
        self._add(Step(step, "frames", config, self._data(), (need,)))
        return step

    def _dataset_values(
        self, name: DatasetName, source: DatasetSource, split: int
    ) -> dict[str, Any]:
        layout = self._layout
        values: dict[str, Any] = {
            "dataset.root": str(layout.data / source.root),
            "dataset.split": split,
            "frames": str(layout.labelled_frames(name)),
            "flow": str(layout.labelled_flow(name)),
        }
        if source.splits is not None:
            values["dataset.splits"] = str(layout.data / source.splits)
        return values

    @staticmethod
    def _splits_needs(source: DatasetSource) -> tuple[Need, ...]:
        if source.splits is None:
            return ()
        return (Need(source.splits, "splits", f"split lists of {source.title}"),)

    # Parts of the scale

    def _clip_values(self, cell: Cell) -> dict[str, Any]:
        values: dict[str, Any] = {"clip.frames": cell.frames}
        if cell.input == "flow":
            values["clip.flow_range"] = self._scale.flow_range
        return values

    def _parts(self, cell: Cell) -> int:
        """Parts into which the batches of a cell are divided."""
        return present(self._scale.long_clips, "long clips") if cell.frames > _LONG else 1

    def _student(self, role: StudentRole) -> str:
        return present(self._scale.students.get(role), f"student {role}")

    def _teacher(self, role: TeacherRole) -> TeacherSource:
        return present(self._scale.teachers.get(role), f"teacher {role}")

    def _dataset(self, name: DatasetName) -> DatasetSource:
        return present(self._scale.datasets.get(name), f"dataset {name}")

    def _add(self, step: Step) -> None:
        self.steps.setdefault(step.name, step)


def teacher_needs(role: TeacherRole, source: TeacherSource) -> list[Need]:
    """The module of a plugin and the weights of a teacher."""
    what = f"teacher {role} ({source.name})"
    needs = []
    if source.name.startswith(PLUGIN):
        needs.append(Need(source.name.split(":")[1], "module", what))
    if source.weights is not None:
        needs.append(Need(source.weights, "weights", what))
    return needs


def _variant_name(variant: Variant) -> str:
    k = str(variant.k) if variant.pick == "k_random" else ""
    kept = "" if variant.keep_percent == 100 else f"-keep{variant.keep_percent}"
    teachers = "-".join(variant.teachers)
    return f"{teachers}-{variant.pick}{k}-{_SHORT_LOSS[variant.loss]}{kept}"


def _suffix(cell: Cell) -> str:
    flow = "-flow" if cell.input == "flow" else ""
    return flow + ("" if cell.frames == _LONG else f"-{cell.frames}f")


def _target(role: TeacherRole, variant: Variant) -> dict[str, Any]:
    target: dict[str, Any] = {"teacher": role, "pick": variant.pick, "loss": variant.loss}
    if variant.pick == "k_random":
        target["k"] = variant.k
    if variant.keep_percent < 100:
        target["filter"] = {"keep_fraction": variant.keep_percent / 100}
    return target
