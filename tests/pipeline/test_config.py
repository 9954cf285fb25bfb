"""Configurations: sources in order of precedence, and messages that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.config import build_config, merge_setting
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.extract import ExtractConfig

BASE = {"cache": "c", "frames": "f", "out": "o"}


def test_settings_win_over_options_and_options_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("cache: from_file\nframes: f\nout: o\noptimizer: {epochs: 3, momentum: 0.5}\n")
    config = build_config(
        DistillConfig,
        file,
        ["optimizer.epochs=7", "clip.crop=64"],
        {"cache": "from_option", "optimizer.epochs": 5, "runtime.seed": None},
    )
    assert config.cache == "from_option"
    assert (config.optimizer.epochs, config.optimizer.momentum) == (7, 0.5)
    assert (config.clip.crop, config.runtime.seed) == (64, 0)


def test_a_setting_can_index_a_list() -> None:
    values = {"targets": [{"pick": "random"}, {"pick": "random"}]}
    merge_setting(values, "targets.1.pick", "center")
    assert values["targets"] == [{"pick": "random"}, {"pick": "center"}]


def test_a_setting_creates_the_first_element_of_a_list() -> None:
    for values in ({}, {"targets": []}):
        merge_setting(values, "targets.0.temperature", 2)
        merge_setting(values, "targets.0.filter.keep_fraction", 0.5)
        assert values == {"targets": [{"temperature": 2, "filter": {"keep_fraction": 0.5}}]}
        with pytest.raises(ConfigError, match='"1" is not an index of the list'):
            merge_setting(values, "targets.1.pick", "center")
    config = build_config(DistillConfig, None, ["targets.0.temperature=2"], {**BASE, **STARS})
    assert [(t.temperature, t.pick) for t in config.targets] == [(2, "center")]


STARS = {"targets.*.pick": "center", "targets.*.filter.keep_fraction": 0.5}


@pytest.mark.parametrize(
    ("file", "settings", "targets"),
    [
        ("", [], [(None, "center", 0.5)]),
        ("targets: [{pick: all}]", [], [(None, "center", 0.5)]),
        (
            "targets: [{teacher: a}, {teacher: b, pick: all, filter: {keep_fraction: 0.9}}]",
            [],
            [("a", "center", 0.5), ("b", "center", 0.5)],
        ),
        # --set wins over the option, for the targets and the keys that it names.
        ("", ["targets=[{teacher: a, pick: all}, {}]"], [("a", "all", 0.5), (None, "center", 0.5)]),
        (
            "targets: [{teacher: a}, {teacher: b}]",
            ["targets.1.pick=all", "targets.0.filter.keep_fraction=0.25"],
            [("a", "center", 0.25), ("b", "all", 0.5)],
        ),
    ],
)
def test_an_option_for_every_element_of_a_list(
    file: str, settings: list[str], targets: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"cache: c\n{file}\n")
    config = build_config(DistillConfig, path, settings, {**BASE, **STARS})
    found = [(t.teacher, t.pick, t.filter.keep_fraction) for t in config.targets]
    assert found == targets


def test_an_option_for_every_element_does_not_hide_mistakes_in_the_list() -> None:
    for settings in (["targets=3"], ["targets=[3]"]):
        with pytest.raises(ConfigError, match="targets"):
            build_config(DistillConfig, None, settings, {**BASE, **STARS})
    both = ["targets=[{filter: {max_entropy_nats: 2}}]"]
    with pytest.raises(ConfigError, match="set max_entropy_nats or keep_fraction, not both"):
        build_config(DistillConfig, None, both, {**BASE, **STARS})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["optimizer.epoch=3"],
            r"optimizer.epoch: unknown key; did you mean epochs.* \(known here: betas",
        ),
        (
            ["student.nam=x"],
            r"student.nam: unknown key; did you mean name\? \(known here: in_channels, name\)",
        ),
        (["seed=3"], r"seed: unknown key; did you mean runtime.seed\?"),
        (
            ["targets=[{pick: centre}]"],
            r"found:    targets.0.pick: must be one of center, random, uniform, k_random, all "
            r'\(found "centre"\); did you mean center\?$',
        ),
        (["optimizer.warmup_epochs=-1"], r"must be at least 0 \(found -1\)$"),
        (["runtime.workers=x"], r'runtime.workers: must be a whole number \(found "x"\)$'),
        (["optimizer.gamma=null"], r"optimizer.gamma: must be a number \(found nothing\)$"),
        (["runtime.compile=[1]"], r"runtime.compile: must be true or false \(found \[1\]\)$"),
        (["student=3"], r"student: must be keys with values \(found 3\)$"),
        (["cache=2024-01-02"], r"cache: must be a text \(found 2024-01-02\)$"),
        (["targets=[]"], r"targets: must be a list of at least this many values: 1 \(found \[\]"),
        (["targets=3"], r"targets: must be a list \(found 3\)$"),
        (["novalue"], "not of the form a.b=value"),
        (["cache.x=1"], "cache.x: the value that should contain x has no keys"),
        (["clip=[1, 2"], "--set clip="),
    ],
)
def test_mistakes_are_reported_with_the_known_names(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(DistillConfig, None, settings, BASE)


def test_the_alternatives_of_a_value_make_one_line() -> None:
    base = {"videos": "v", "cache": "c", "teachers": [{"name": "null"}]}
    with pytest.raises(ConfigError) as raised:
        build_config(ExtractConfig, None, ["compute.workers=many"], base)
    assert raised.value.found == 'compute.workers: must be a whole number or auto (found "many")'


def test_each_mistake_has_a_separate_line() -> None:
    with pytest.raises(ConfigError) as raised:
        build_config(DistillConfig, None, ["clip.a=1", '{"x\\ny": 1}=2'], BASE)
    head, first, second = str(raised.value).splitlines()
    assert head == "the distill configuration is invalid"
    assert first.startswith("  found:    clip.a: unknown key; known here: crop")
    assert second.startswith('            {"x\\ny": 1}: unknown key')


def test_the_message_about_a_missing_value_explains_how_to_set_it() -> None:
    with pytest.raises(ConfigError, match="teachers: missing; give it in --config"):
        build_config(ExtractConfig, None, [], {"videos": "v", "cache": "c"})


def test_a_missing_file_and_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        build_config(DistillConfig, tmp_path / "none.yaml", [], {})
    file = tmp_path / "list.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="not a configuration"):
        build_config(DistillConfig, file, [], {})


def test_yaml_cannot_construct_python_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("cache: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        build_config(DistillConfig, file, [], {})


def _doubled(levels: int) -> str:
    """Each list has the previous one ten times: 10 ** levels values in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_doubled(9), "aliases expand to more than"),
        ("cache: &a [*a]", "aliases expand to more than"),
        (f"cache: &a {'x' * 2_000}\nframes: [{', '.join(['*a'] * 600)}]", "aliases expand"),
        (f"cache: {'x' * (1 << 20)}", "more than 1,048,576 bytes"),
        ("cache: " + "[" * 3_000, "too many levels"),
        ("cache: 2024-13-45", "month must be in 1..12"),
        ("cache: !!int x", "not valid YAML"),
        ("~: 1", "names that are texts"),
        ("cache: !!bool x", "not valid YAML"),
        ("cache: !!timestamp x", "not valid YAML"),
        (f"cache: {'9' * 5_000}", "not valid YAML"),
    ],
)
def test_yaml_that_is_too_large_or_has_impossible_values_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        build_config(DistillConfig, file, [], {})


def test_yaml_may_have_aliases(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("cache: &a x\nframes: *a\nout: o\n")
    config = build_config(DistillConfig, file, [], {})
    assert (config.cache, config.frames) == ("x", "x")


def test_a_message_shows_the_beginning_of_a_long_value() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(DistillConfig, None, [f"clip={'y' * 5_000}"], {})
    assert 300 < len(str(caught.value)) < 1_000
