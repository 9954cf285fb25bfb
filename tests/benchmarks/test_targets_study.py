"""The study of targets: which rate it chooses, its tables, its validation films, its teacher."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from digit_features import digit_features
from target_arms import Score, Trial, best_rates, score_figure, score_table, trial_table
from target_corpora import picture_films, validation_digits

from distinit.pipeline.demo.digit_teacher import digit_teacher, train_teacher
from distinit.pipeline.demo.digits import pool

TRIALS = [
    Trial("logits", 0.05, 40.0),
    Trial("features", 0.05, 30.0),
    Trial("logits", 0.15, 40.0),
    Trial("features", 0.15, 35.5),
]
SCORES = [
    Score("scratch", 0, 6, 20.0),
    Score("logits", 0, 6, 50.0),
    Score("scratch", 1, 6, 24.0),
    Score("logits", 1, 6, 60.0),
]


def test_each_target_gets_its_best_rate_and_of_equal_ones_the_lowest() -> None:
    assert best_rates(TRIALS) == {"logits": 0.05, "features": 0.15}


def test_the_chosen_rates_are_bold() -> None:
    assert trial_table(TRIALS) == [
        "| target | 0.05 | 0.15 |",
        "|---|---|---|",
        "| logits | **40.0** | 40.0 |",
        "| features | 30.0 | **35.5** |",
    ]


def test_the_gain_is_the_mean_of_the_differences_of_each_seed() -> None:
    assert score_table(SCORES, {"logits": 0.05}) == [
        "| films per class | target | rate | seed 0 | seed 1 | mean ± sd | gain |",
        "|---|---|---|---|---|---|---|",
        "| 6 | scratch |  | 20.0 | 24.0 | 22.0 ± 2.8 |  |",
        "| 6 | logits | 0.05 | 50.0 | 60.0 | 55.0 ± 7.1 | +33.0 ± 4.2 |",
    ]


def test_the_figure_has_a_bar_per_row_and_a_point_per_seed() -> None:
    (axes,) = score_figure(SCORES, "Digits").axes
    assert [bar.get_height() for bar in axes.patches] == [22.0, 55.0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[20.0, 24.0], [50.0, 60.0]]


def test_validation_films_show_scans_that_are_in_no_other_pool() -> None:
    films = validation_digits()
    assert {film.scan for film in films} == {scan for scan, _ in pool("held_out")}
    assert set(Counter(film.label for film in films).values()) == {40}
    assert len({film.path for film in films}) == 400
    assert len({Path(film.path).parent.name for film in films}) == 50


def test_features_are_what_the_last_layer_of_the_teacher_reads(tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    train_teacher(weights, epochs=1, per_scan=1)
    whole, spec, _, _ = digit_teacher(str(weights), "cpu")
    headless, spec_of_features, names, _ = digit_features(str(weights), "cpu")
    frames_NCHW = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features_ND = headless.eval()(frames_NCHW)
        logits_NC = whole.eval()(frames_NCHW)
    assert features_ND.shape == (2, 64)
    head_CD, bias_C = whole.state_dict()["classifier.weight"], whole.state_dict()["classifier.bias"]
    torch.testing.assert_close(features_ND @ head_CD.T + bias_C, logits_NC)
    assert (spec_of_features, names) == (spec, ())


def test_films_of_other_photographs_validate_and_test(tmp_path: Path) -> None:
    for subset, photographs in (("train", 14), ("val", 3)):
        for label in ("fish", "dog"):
            folder = tmp_path / subset / label
            folder.mkdir(parents=True)
            for number in range(photographs):
                (folder / f"{number}.png").touch()
    films = picture_films(tmp_path, train=2, unlabelled=5)
    split_of = {film.path: Path(film.path).parts[:-2] for film in films}
    used: dict[tuple[str, ...], set[str]] = {}
    for film in films:
        used.setdefault(split_of[film.path], set()).add(film.photograph)
    counts = {"/".join(split): len(photographs) for split, photographs in used.items()}
    assert counts["labelled/train"] == 2 * 2
    assert counts["labelled/val"] == 2 * 10
    assert counts["labelled/test"] == 2 * 3
    assert not used[("labelled", "train")] & used[("labelled", "val")]
