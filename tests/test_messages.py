"""Mistakes on the command line: each gets plain words, and nothing of Python's internals."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from helpers.command_line import run_command
from test_architecture import ROOT, package_files

PLUGIN = """
import torch
from distinit.schemas.teacher import PreprocessSpec

class Net(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(192, 4), scale

    def forward(self, x):
        return self.linear(x.flatten(1)) / self.scale

def parts(side=8, mean=(0, 0, 0), scale=1, names=()):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=side, crop_size=side, mean=mean, std=(1, 1, 1)
    )
    return Net(scale), spec, names, "made"

def crop(weights, device):
    return parts(side=9)

def spec(weights, device):
    return parts(mean="grey")

def nan(weights, device):
    return parts(scale=0)

def names(weights, device):
    return parts(names=["a"])

def space(weights, device):
    return (*parts()[:3], 3)

def nothing(weights, device):
    pass

def fails(weights, device):
    return {}["weights"]

def reads(weights, device):
    return open("/no/such/file")

def bare():
    return parts()
"""
TEACHERS = {
    "messages_plugin": ["does not name a function"],
    "messages_plugin:": ["does not name a function"],
    "no_such_plugin:f": ["add its folder to PYTHONPATH"],
    "messages_broken:f": ["invalid syntax", "messages_broken.py, line 1"],
    "messages_plugin:corp": ["did you mean crop?"],
    "messages_plugin:torch": ["a Python module"],
    "messages_plugin:crop": ["failed on one frame", "[1, 3, 9, 9]", "messages_plugin.py, line 11"],
    "messages_plugin:spec": ['mean: must be a list (found "grey")'],
    "messages_plugin:nan": ["NaN or infinity", "4 of 4 values"],
    "messages_plugin:names": ["4 names", "1 names"],
    "messages_plugin:space": ["a number", "did not return a teacher"],
    "messages_plugin:nothing": ["found:    nothing"],
    "messages_plugin:fails": ["there is no key 'weights'", "messages_plugin.py, line"],
    "messages_plugin:reads": ["/no/such/file: No such file", "messages_plugin.py, line"],
    "messages_plugin:bare": ["takes 0 positional arguments"],
}
OPTIONS: list[tuple[str, int, str]] = [
    ("extract --config nowhere.yaml", 2, "no such file"),
    (f"extract --config {'x' * 5000}", 2, "no such file"),
    ("extract --config folder", 2, "directory"),
    ("extract --config binary.yaml", 2, "binary.yaml"),
    ("extract --config list.yaml", 2, "list.yaml"),
    ("extract --set device={}", 2, "device"),
    ("extract --set teachers=5", 2, "(teachers): must be a list"),
    ("extract --set teachers=[{}]", 2, "missing"),
    ("extract --set out=[1", 2, "out"),
    ("extract --set ☃=1", 2, "unknown key"),
    ("extract --fps x", 2, "not a valid float"),
    ("extract --workers many", 2, "compute.workers"),
    ("distill --set student=null", 2, "student"),
    ("distill --set clip=[1,2]", 2, "clip: must be keys with values"),
    ("distill --epochs -5", 2, "epochs"),
    ("distill --cache nowhere --frames nowhere --out run", 2, "nowhere"),
    ("finetune --init ünï☃", 2, "ünï☃"),
    (
        "finetune --dataset file.txt --out run --init scratch --student tiny_r2plus1d_10",
        2,
        "file.txt",
    ),
    ("evaluate --run nowhere", 2, "nowhere"),
    ("evaluate --run file.txt", 2, "file.txt"),
    ("cache info file.txt", 2, "file.txt"),
    ("cache verify folder", 2, "manifest"),
    ("config nothing", 2, "nothing"),
    ("reproduce table9", 2, "table9"),
    ("reproduce table1 --seeds a", 2, "list of numbers"),
    (f"reproduce table1 --plan --data {'x' * 5000}", 2, "use a shorter path"),
    (f"cache info {'x' * 5000}", 2, "file name too long"),
    ("cache info nowhere", 2, "that folder does not exist"),
    ("cache verify nowhere", 2, "that folder does not exist"),
    ("cache sign nowhere --key key.pem", 2, "that folder does not exist"),
    ("cache verify store", 2, "this is a frame store"),
    ("cache merge nowhere --out out", 2, "cannot merge this number"),
    ("cache merge nowhere store --out out", 2, "that folder does not exist"),
    ("cache merge nowhere store --out nowhere", 2, "choose another --out"),
    ("cache subset store --out out", 2, "this is a frame store"),
    ("cache subset nowhere --out out --max-entropy nan", 2, "0 .. 100 nats"),
    ("cache subset nowhere --out out --keep-fraction 0", 2, "above 0, at most 1"),
    ("cache subset nowhere --out out --min-share 1", 2, "need a threshold"),
    ("cache subset nowhere --out out --videos folder", 2, "not a list of videos"),
    ("cache diff nowhere store", 2, "that folder does not exist"),
    ("cache diff nowhere store --out targets", 2, "lies inside"),
    ("cache encode nowhere --out out --encoding int9", 2, "did you mean int8?"),
    ("cache info nowhere", 2, "name the folder that `distinit extract` wrote"),
    ("cache info store", 2, "this is a frame store"),
    ("frames verify nowhere", 2, "nowhere is not a frame store"),
    ("frames verify targets", 2, "this is a target cache"),
    ("figures filters --run a=file.txt --out out", 2, "file.txt is not the student of a run"),
    ("extract --videos a.mp4 --teacher null --cache out --stride 1" + 20 * "0", 2, "21 digits"),
    ("runs --compare a=", 2, "--compare"),
]
NUMBERS: dict[str, str] = {
    "evaluate --run folder --protocol dense-s0": "N must be a number from 1 to 999999",
    "evaluate --run folder --protocol slowfast-10x2": "10x1 or slowfast-10x3",
    "reproduce table9": "the tables are 1 to 6, and the figures 3 to 7",
}
"""Command line with a name that only has a wrong number -> the numbers that exist."""
DID_YOU_MEAN = {
    "extract --videos a.mp4 --cache out --teacher resnet51": "resnet50, ",
    "extract --videos a.mp4 --cache out --teacher efficientnet-lite": "efficientnet_lite",
    "extract --videos a.mp4 --cache out --teacher tim:resnet50": "timm:resnet50?",
    "extract --videos a.mp4 --cache out --teacher place365:resnet18": "places365:resnet18?",
    "extract --videos a.mp4 --cache out --teacher places365:resnt18": "resnet18, ",
    "extract --videos a.mp4 --cache out --teacher null --encoding float61": "float16?",
    "extract --videos a.mp4 --cache out --teacher null --device cda": "cuda?",
    "finetune --dataset folder --out out --init scratch --student r2plus1d18": "r2plus1d_18, ",
    "finetune --dataset folder --out out --init scrach": "scratch?",
    "finetune --dataset folder --out out --init distint:run": "distinit:run ",
    "features --dataset folder --out out --init infated": "inflated?",
    "probe --dataset folder --out out --init fil:x": "file:x?",
    "distill --config demo_distil": "demo_distill ",
    "distill --config gpus/distil_4gpu": "gpus/distill_4gpu, ",
    "distill --set optimiser.epochs=3": "optimizer?",
    "distill --set optimizer.epoch=3": "epochs ",
    "distill --set epochs=3": "optimizer.epochs?",
    "distill --precision bf15": "bf16?",
    "distill --pick randm": "random ",
    "distill --device cdua": "cuda?",
    "evaluate --run folder --protocol vnz-10": "vmz-10 ",
    "evaluate --run folder --protocol slofast-10x3": "slowfast-10x3 ",
    "evaluate --run folder --subset tset": "test?",
    "reproduce tabel1": "table1, ",
    "reproduce table1 --scale smal": "small?",
    "config finetun": "finetune?",
}
"""Command line -> what its message suggests first."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "messages_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "messages_broken.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for path in ("store/store.json", "targets/manifest.json", "targets/plan.parquet"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{}")
    (tmp_path / "file.txt").write_text("x\n", encoding="utf-8")
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("messages_plugin", "messages_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def output_of(arguments: list[str], code: int) -> str:
    found, output = run_command(arguments)
    assert found == code, output
    return output


@pytest.mark.parametrize("name", TEACHERS)
def test_a_wrong_teacher_plugin_is_explained_before_the_cache_exists(
    name: str, folder: Path
) -> None:
    given = ["--videos", "a.mp4", "--cache", "cache", "--quiet", "--teacher", f"plugin:{name}"]
    output = output_of(["extract", *given], 2)
    assert all(word in output for word in TEACHERS[name]), output
    assert not (folder / "cache").exists()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("line", "code", "words"), OPTIONS, ids=[o[0][:50] for o in OPTIONS])
def test_a_wrong_value_is_explained_in_plain_words(line: str, code: int, words: str) -> None:
    assert words.lower() in output_of(line.split(), code).lower()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", DID_YOU_MEAN)
def test_a_misspelt_name_is_recognised(line: str) -> None:
    output = output_of(line.split(), 2)
    assert f"did you mean {DID_YOU_MEAN[line]}" in output, output


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", NUMBERS)
def test_a_wrong_number_in_a_name_is_not_a_misspelling(line: str) -> None:
    output = output_of(line.split(), 2)
    assert NUMBERS[line] in output
    assert "did you mean" not in output


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("teachers resnt50", "did you mean resnet50, "),
        ("teachers foo", "list all names with `distinit teachers`"),
        ("students tiny_r3d9", "did you mean tiny_r3d_9"),
        ("students zzz", "list all names with `distinit students`"),
    ],
)
def test_a_text_that_no_name_contains_is_an_error(command: str, remedy: str) -> None:
    kind, text = command.split()
    output = output_of([kind, text], 2)
    assert f"no {kind[:-1]}'s name contains {text}" in output
    assert remedy in output


@pytest.mark.parametrize("group", [None, "cache", "frames", "flow", "figures"])
def test_the_summary_of_each_command_is_a_whole_sentence(group: str | None) -> None:
    output = output_of([*([group] if group else []), "--help"], 0)
    assert "..." not in output.partition("\n")[2]  # the first line has [ARGS]...


@pytest.mark.parametrize("path", package_files(), ids=str)
def test_only_docstrings_have_double_backquotes(path: Path) -> None:
    """People read messages and descriptions as they are."""
    tree = ast.parse((ROOT / path).read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            assert "``" not in str(node.value), f"{path}, line {node.lineno}: {node.value}"


@pytest.mark.parametrize("path", package_files(), ids=str)
def test_no_message_quotes_a_value_as_python_does(path: Path) -> None:
    """``wording.shown`` quotes values."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        assert not (isinstance(node, ast.FormattedValue) and node.conversion == ord("r")), (
            f"{path}, line {node.lineno}: !r"
        )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "repr", f"{path}, line {node.lineno}: repr"
