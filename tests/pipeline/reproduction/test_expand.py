"""Tables become runs: exact names, shared runs, settings, and rows that a scale cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reproductions import expanded, scale_with

from distinit.pipeline.reproduction.expand import Choice, Reproduction
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.reproduce import TeacherRole

CENTRE = {"init": "distinit", "distill": {"pick": "center"}}
RANDOM = {"init": "distinit", "distill": {"pick": "random"}}


def test_a_row_of_distinit_needs_its_data_its_distillation_and_its_finetuning() -> None:
    plan = expanded(CENTRE)
    assert {name: step.after for name, step in plan.steps.items()} == {
        "data": (),
        "extract": ("data",),
        "distill-r2plus1d_18-imagenet-center-ce-s0": ("extract",),
        "frames-hmdb51": ("data",),
        "finetune-hmdb51-split1-r2plus1d_18-imagenet-center-ce-s0": (
            "data",
            "distill-r2plus1d_18-imagenet-center-ce-s0",
            "frames-hmdb51",
        ),
    }
    distill, finetune = (plan.steps[n].config for n in list(plan.steps)[2::2])
    assert isinstance(distill, DistillConfig)
    assert isinstance(finetune, FinetuneConfig)
    assert (distill.student.name, distill.clip.frames) == ("tiny_r2plus1d_10", 8)
    assert [(t.teacher, t.pick, t.loss) for t in distill.targets] == [
        ("imagenet", "center", "cross_entropy")
    ]
    assert distill.out == "out/runs/distill-r2plus1d_18-imagenet-center-ce-s0"
    assert finetune.init == f"distinit:{distill.out}"
    assert finetune.dataset.splits == "data/splits/hmdb51"
    assert (finetune.frames, finetune.evaluation.protocol) == ("out/labelled/hmdb51", "vmz-2")


def test_rows_with_the_same_run_share_it() -> None:
    plan = expanded(CENTRE, CENTRE, {"paper": {"top1": 1.0}}, {"main": True})
    rows = plan.rows["table9"]
    assert rows[0].runs == rows[1].runs
    assert rows[2].runs == rows[3].runs
    kinds = [step.kind for step in plan.steps.values()]
    assert (kinds.count("distill"), kinds.count("finetune")) == (1, 2)


def test_all_tables_share_their_runs() -> None:
    plan = expanded()
    kinds = [step.kind for step in plan.steps.values()]
    rows = sum(len(rows) for rows in plan.rows.values())
    # 12 students, 2 image networks to inflate from; 24 finetuned, 1 trained on the corpus's labels.
    assert {kind: kinds.count(kind) for kind in ("distill", "finetune", "evaluate")} == {
        "distill": 14,
        "finetune": 25,
        "evaluate": 6,
    }
    assert rows == 35
    order = list(plan.steps)
    for name, step in plan.steps.items():
        assert all(order.index(before) < order.index(name) for before in step.after)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ({}, "r2plus1d_18-scratch"),
        ({"input": "flow"}, "r2plus1d_18-scratch-flow"),
        ({"frames": 32}, "r2plus1d_18-scratch-32f"),
        ({"init": "supervised"}, "r2plus1d_18-supervised"),
        (
            {"student": "r3d_18", "init": "inflated", "inflate": "places"},
            "r3d_18-inflated-places",
        ),
        (
            {"init": "distinit", "distill": {"teachers": ["imagenet", "places"], "loss": "mse"}},
            "r2plus1d_18-imagenet-places-random-mse",
        ),
        (
            {"init": "distinit", "distill": {"pick": "k_random", "k": 2, "keep_percent": 25}},
            "r2plus1d_18-imagenet-k_random2-ce-keep25",
        ),
    ],
)
def test_names_say_what_a_run_is(cell: dict[str, object], name: str) -> None:
    (row,) = expanded(cell).rows["table9"]
    assert [run.finetuned for run in row.runs] == [f"finetune-hmdb51-split1-{name}-s0"]


def test_mse_is_trained_with_a_tenth_of_the_learning_rate() -> None:
    plan = expanded({"init": "distinit", "distill": {"loss": "mse"}}, RANDOM)
    rates = {
        config.targets[0].loss: config.optimizer.learning_rate
        for step in plan.steps.values()
        if isinstance(config := step.config, DistillConfig)
    }
    assert rates == {"mse": pytest.approx(0.005), "cross_entropy": 0.05}


def test_the_inits_of_a_row() -> None:
    scale = scale_with(inflation={"imagenet": {"weights": "w.pth"}, "places": {"student": "tiny"}})
    inflated = {"student": "r3d_18", "init": "inflated"}
    rows = ({**inflated, "inflate": r} for r in ("imagenet", "places"))
    plan = expanded(*rows, {"init": "supervised"}, {}, scale=scale)
    inits = [
        config.init
        for row in plan.rows["table9"]
        for run in row.runs
        if isinstance(config := plan.steps[run.finetuned].config, FinetuneConfig)
    ]
    assert inits == [
        "inflated:data/w.pth",
        "inflated:out/runs/distill-image-places-s0/student.safetensors",
        "file:out/runs/pretrain-r2plus1d_18-s0/student.safetensors",
        "scratch",
    ]
    image = plan.steps["distill-image-places-s0"].config
    assert isinstance(image, DistillConfig)
    assert (image.clip.frames, image.student.name) == (1, "tiny")


def test_flow_students_have_two_channels_and_flow_stores() -> None:
    plan = expanded({**CENTRE, "input": "flow"}, scale=scale_with(flow_range=7.0))
    distill = plan.steps["distill-r2plus1d_18-imagenet-center-ce-flow-s0"].config
    assert isinstance(distill, DistillConfig)
    assert (distill.student.in_channels, distill.frames) == (2, "out/flow")
    assert (len(distill.clip.mean), distill.clip.flow_range) == (2, 7.0)
    (run,) = plan.rows["table9"][0].runs
    finetune = plan.steps[run.finetuned].config
    assert isinstance(finetune, FinetuneConfig)
    assert finetune.student is not None
    assert (finetune.student.in_channels, finetune.flow) == (2, "out/labelled/hmdb51-flow")


def test_long_clips_have_the_same_global_batch_and_rate_in_smaller_batches() -> None:
    long = {**RANDOM, "frames": 32, "protocol": "dense"}
    plan = expanded(long, RANDOM, scale=scale_with("paper"))
    found = {
        (type(config).__name__, config.clip.frames): (
            config.runtime.batch_size,
            config.runtime.shards,
            config.optimizer.learning_rate,
        )
        for step in plan.steps.values()
        if isinstance(config := step.config, DistillConfig | FinetuneConfig)
    }
    assert found == {
        ("DistillConfig", 8): (32, 4, 0.01),
        ("DistillConfig", 32): (8, 16, 0.0025),
        ("FinetuneConfig", 8): (32, 1, 0.002),
        ("FinetuneConfig", 32): (8, 4, 0.0005),
    }


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match="a batch of 32 clips cannot be divided into 3 parts"):
        expanded({"frames": 32}, scale=scale_with("smoke", long_clips=3))


def test_dense_rows_are_evaluated_after_their_finetuning() -> None:
    plan = expanded({"frames": 32, "protocol": "dense", "all_splits": True, "dataset": "ucf101"})
    (row,) = plan.rows["table9"]
    stem = "ucf101-split{}-r2plus1d_18-scratch-32f-s0"
    assert [(run.split, run.scored) for run in row.runs] == [
        (split, f"evaluate-{stem.format(split)}-dense-s8") for split in (1, 2, 3)
    ]
    config = plan.steps[row.runs[1].scored].config
    assert isinstance(config, EvaluateConfig)
    assert config.run == f"out/runs/finetune-{stem.format(2)}"
    assert (config.frames, config.evaluation.protocol) == ("out/labelled/ucf101", "dense-s8")


def test_splits_and_seeds_multiply_the_runs() -> None:
    plan = expanded(RANDOM, choice=Choice(splits=(1, 3), seeds=(0, 5)))
    runs = [(run.split, run.seed) for run in plan.rows["table9"][0].runs]
    assert runs == [(1, 0), (1, 5), (3, 0), (3, 5)]
    distilled = [n for n, step in plan.steps.items() if step.kind == "distill"]
    assert distilled == [f"distill-r2plus1d_18-imagenet-random-ce-s{seed}" for seed in (0, 5)]
    seeds = {
        config.runtime.seed
        for step in plan.steps.values()
        if isinstance(config := step.config, DistillConfig | FinetuneConfig)
    }
    assert seeds == {0, 5}


def test_main_rows_have_the_main_seeds() -> None:
    scale = scale_with(seeds=(0,), main_seeds=(0, 1, 2))
    main, other = expanded({"main": True}, CENTRE, scale=scale).rows["table9"]
    assert [run.seed for run in main.runs] == [0, 1, 2]
    assert [run.seed for run in other.runs] == [0]


def test_a_sweep_trains_every_row_with_every_rate() -> None:
    plan = expanded({}, CENTRE, scale=scale_with(sweep=(0.02, 0.1)))
    for row in plan.rows["table9"]:
        assert [run.rate for run in row.runs] == [0.02, 0.1]
        rates = [
            config.optimizer.learning_rate
            for run in row.runs
            if isinstance(config := plan.steps[run.finetuned].config, FinetuneConfig)
        ]
        assert rates == [0.02, 0.1]
    assert "finetune-hmdb51-split1-r2plus1d_18-scratch-s0-lr0.02" in plan.steps
    assert [step.kind for step in plan.steps.values()].count("distill") == 1


@pytest.mark.parametrize(
    ("cell", "changes", "why"),
    [
        ({"student": "r3d_18"}, {"students": {"r3d_18": {"absent": "too big"}}}, "too big"),
        ({"student": "r3d_18"}, {"students": {}}, "the scale has no student r3d_18"),
        ({"dataset": "ucf101"}, {"datasets": {"ucf101": {"absent": "one only"}}}, "one only"),
        (CENTRE, {"teachers": {"imagenet": {"absent": "no network"}}}, "no network"),
        ({"init": "supervised"}, {"supervised": {"absent": "no labels"}}, "no labels"),
        ({"frames": 32}, {"long_clips": {"absent": "short films"}}, "short films"),
    ],
)
def test_a_row_that_the_scale_cannot_have_says_why(
    cell: dict[str, object], changes: dict[str, object], why: str
) -> None:
    (row,) = expanded(cell, scale=scale_with(**changes)).rows["table9"]
    assert (row.absent, row.runs) == (why, ())


def test_a_dataset_has_only_its_own_splits() -> None:
    scale = scale_with(datasets={"hmdb51": {"title": "films", "root": "films"}})
    rows = expanded({}, {"all_splits": True}, scale=scale, choice=Choice(splits=(1, 2)))
    first, every = rows.rows["table9"]
    assert [run.split for run in first.runs] == [1]
    assert every.absent == "films has only one split"
    with pytest.raises(ConfigError, match="no dataset of this scale has any of the splits"):
        expanded({}, scale=scale, choice=Choice(splits=(2, 9)))


def test_the_extraction_runs_the_teachers_that_rows_need_and_whose_weights_exist() -> None:
    both = {"init": "distinit", "distill": {"teachers": ["imagenet", "places"]}}
    only_one, all_of_them = expanded(CENTRE), expanded(both)

    def teachers(
        plan: Reproduction, present: dict[TeacherRole, bool]
    ) -> list[tuple[str | None, str | None]]:
        step = plan.builder.with_teachers(present)["extract"]
        assert isinstance(step.config, ExtractConfig)
        return [(request.id, request.weights) for request in step.config.teachers]

    digits = ("imagenet", "data/weights/digits.safetensors")
    assert teachers(only_one, {}) == [digits]
    assert teachers(all_of_them, {}) == [digits, ("places", None)]
    assert teachers(all_of_them, {"imagenet": False}) == [("places", None)]


def test_paths_below_the_data_folder_are_needs() -> None:
    plan = expanded(CENTRE, scale=scale_with("paper"))
    needs = {need.path for step in plan.steps.values() for need in step.needs}
    assert needs == {"kinetics", "weights/resnet50-0676ba61.pth", "hmdb51", "splits/hmdb51"}
    places = {"init": "distinit", "distill": {"teachers": ["places"]}}
    small = expanded(places, scale=scale_with("small"))
    (distilled,) = (step for step in small.steps.values() if step.kind == "distill")
    assert [(need.kind, need.path) for need in distilled.needs] == [
        ("module", "places_squeezenet"),
        ("weights", "weights/squeezenet_bn_places365_bgr255.pth"),
    ]
    extract = plan.steps["extract"].config
    assert isinstance(extract, ExtractConfig)
    assert Path(extract.videos) == Path("out/corpus.txt")
