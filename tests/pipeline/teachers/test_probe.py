"""The probe picture: equal on every machine; outputs for it distinguish edits from rounding."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_1

from distinit.pipeline.teachers.base import NetworkTeacher, Precision
from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.probe import probe_frame, probe_record
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import (
    PreprocessSpec,
    TeacherIdentity,
    TeacherRequest,
    identity_differences,
)

SPEC = PreprocessSpec(
    resize_mode="short_edge", resize_size=72, crop_size=64, mean=(0.5,) * 3, std=(0.25,) * 3
)


def identity_of(spec: PreprocessSpec = SPEC, **changes: object) -> TeacherIdentity:
    fields = {
        "architecture": "made",
        "weights_sha256": "0" * 64,
        "preprocessing": spec,
        "classes": 7,
        "label_space": "made",
        "label_names": tuple("abcdefg"),
    }
    return TeacherIdentity.model_validate(fields | changes)


def squeezenet(state: dict[str, torch.Tensor]) -> nn.Module:
    network = squeezenet1_1(num_classes=7)
    network.load_state_dict(state)
    return network


def probed(
    network: nn.Module, spec: PreprocessSpec = SPEC, precision: Precision = "fp32"
) -> TeacherIdentity:
    """The identity of an unchanged teacher, but with the probe output of ``network``."""
    made = Network(network, identity_of(spec), "made")
    teacher = NetworkTeacher("made", made, device="cpu", precision=precision)
    return identity_of().model_copy(update={"probe": teacher.identity.probe})


def test_the_picture_is_the_same_everywhere() -> None:
    digests = [
        hashlib.sha256(probe_frame(view).tobytes()).hexdigest()[:16]
        for view in (View.source(), View.squash(8, 8), View.short_edge(72))
    ]
    assert digests == ["7e88f05b789307ad", "2101b0aa92f8abd1", "4344e1e64e70c68d"]
    assert probe_frame(View.source()).shape == (360, 480, 3)
    assert probe_frame(View.short_edge(72)).shape == (72, 96, 3)


def test_flips_shifts_and_swapped_channels_change_the_picture() -> None:
    frame = probe_frame(View.source()).astype(int)
    for other in (frame[:, ::-1], frame[::-1], frame[..., ::-1], np.roll(frame, 1, axis=1)):
        assert np.abs(frame - other).mean() > 2


def test_rounding_does_not_make_another_teacher(squeezenet_state: dict[str, torch.Tensor]) -> None:
    usual = probed(squeezenet(squeezenet_state))
    assert identity_differences(usual, probed(squeezenet(squeezenet_state), precision="bf16")) == []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert probed(squeezenet(squeezenet_state)) == usual
    finally:
        torch.set_num_threads(before)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        assert identity_differences(usual, probed(squeezenet(squeezenet_state))) == []
    assert usual.fingerprint == identity_of().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.49, 0.49, 0.49)},
        {"channel_order": "bgr"},
        {"flip": True},
        {"antialias": False},
        {"resize_size": 73},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_preprocessing_that_differs_from_its_record_makes_another_teacher(
    changes: dict[str, object], squeezenet_state: dict[str, torch.Tensor]
) -> None:
    usual = probed(squeezenet(squeezenet_state))
    other = probed(squeezenet(squeezenet_state), SPEC.model_copy(update=changes))
    (difference,) = identity_differences(usual, other)
    assert difference.startswith("output for the probe picture: class ")
    assert difference.endswith(" of its spread; 0.005 is allowed for rounding)")


def test_an_edited_network_with_the_same_weights_is_another_teacher(
    squeezenet_state: dict[str, torch.Tensor],
) -> None:
    edited = squeezenet(squeezenet_state)
    edited.classifier[3] = nn.AdaptiveMaxPool2d((1, 1))  # squeezenet1_1's last layer
    usual = probed(squeezenet(squeezenet_state))
    assert len(identity_differences(usual, probed(edited))) == 1
    assert probed(edited).fingerprint == usual.fingerprint


def test_classes_in_another_order_are_another_teacher() -> None:
    row_C = np.linspace(-1, 1, 1000, dtype=np.float32)
    swapped_C = row_C.copy()
    swapped_C[[400, 700]] = row_C[[700, 400]]
    usual, swapped = (
        identity_of().model_copy(update={"probe": probe_record(row, "made")})
        for row in (row_C, swapped_C)
    )
    assert len(identity_differences(usual, swapped)) == 1


def test_large_values_close_together_differ_by_rounding_alone() -> None:
    row_C = np.float32(10_000) + np.linspace(0, 0.01, 1000, dtype=np.float32)
    noisy_C = np.nextafter(row_C, np.float32(np.inf))
    assert probe_record(row_C, "x").deviation(probe_record(noisy_C, "x")) < 5e-3


def test_outputs_with_all_values_equal_can_be_compared() -> None:
    zeros = probe_record(np.zeros(7, np.float32), "x")
    assert zeros.deviation(zeros) == 0.0
    assert zeros.deviation(probe_record(np.ones(7, np.float32), "x")) > 0.2


def test_a_network_of_16_bits_has_a_larger_tolerance(
    squeezenet_state: dict[str, torch.Tensor],
) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = squeezenet(squeezenet_state).bfloat16()

        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return self.network(x_NCHW.bfloat16())

    half, full = probed(Half()).probe, probed(squeezenet(squeezenet_state)).probe
    assert half is not None
    assert full is not None
    assert (half.half, half.tolerance) == (True, 0.2)
    assert (full.half, full.tolerance) == (False, 5e-3)
    assert 1e-4 < full.deviation(half) < 0.2


def test_an_output_that_is_not_finite_is_refused() -> None:
    with pytest.raises(TeacherError, match="2 of 3 values are not finite"):
        probe_record(np.array([1, np.nan, np.inf], np.float32), "x")


def test_the_null_teacher_has_a_probe_output() -> None:
    probe = load_teacher(TeacherRequest(name="null")).identity.probe
    assert probe is not None
    assert probe.top_classes[0] == 1  # grey


def test_differences_name_fields_and_labels() -> None:
    there = identity_of()
    now = identity_of(
        SPEC.model_copy(update={"mean": (0.4,) * 3}),
        label_names=("a", "b", "x", "d", "e", "f", "y"),
    )
    assert identity_differences(there, there) == []
    assert identity_differences(there, now) == [
        "preprocessing.mean: [0.5, 0.5, 0.5] there, [0.4, 0.4, 0.4] now",
        'label_names: 2 of 7 differ, the first at class 2: "c" there, "x" now',
    ]
    assert identity_differences(there, identity_of(label_names=())) == [
        "label_names: 7 there, 0 now"
    ]


def test_an_edited_module_that_a_plugin_imports_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin's own file and its weights are not changed."""
    plugin = (
        "from made_helper import Net\n"
        "from distinit.schemas.teacher import PreprocessSpec\n"
        "P = PreprocessSpec(resize_mode='squash', resize_size=32, crop_size=32,\n"
        "                   mean=(0.5,) * 3, std=(0.5,) * 3)\n"
        "def t(weights, device): return Net(), P, [], ''\n"
    )
    helper = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)\n"
    )
    (tmp_path / "made_probe_plugin.py").write_text(plugin)
    monkeypatch.syspath_prepend(tmp_path)
    # Bytecode would hide the edit: its time stamp has a resolution of one second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for text in (helper, helper.replace("avg", "max")):
        (tmp_path / "made_helper.py").write_text(text)
        for name in ("made_helper", "made_probe_plugin"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        found.append(load_teacher(TeacherRequest(name="plugin:made_probe_plugin:t")))
    before, after = found
    assert before.id == after.id
    assert before.identity.fingerprint == after.identity.fingerprint
    assert len(identity_differences(before.identity, after.identity)) == 1
