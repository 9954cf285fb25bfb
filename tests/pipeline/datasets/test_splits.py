"""Split lists: the official formats as published, CSV files, malformed and hostile lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.datasets.splits import LabelledPath, SplitLists, listed_paths, read_splits
from distinit.schemas.errors import DatasetError

HMDB = {
    "wave_test_split1.txt": "a_wave_1.avi 1 \nb[x]_wave.avi 2 \n\nc d_wave.avi 0 \n",
    "wave_test_split2.txt": "a_wave_1.avi 2 \nb[x]_wave.avi 1 \n",
    "brush_hair_test_split1.txt": "e!_brush.avi 2 \r\nf_brush.avi 1 \r\n",
    "brush_hair_test_split2.txt": "e!_brush.avi 1 \r\nf_brush.avi 2 \r\n",
    "notes.txt": "not a list",
}
UCF = {
    "classInd.txt": "1 Typing\r\n2 Archery\r\n\r\n",
    "trainlist01.txt": "Typing/v_Typing_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n\r\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\r\nTyping/v_Typing_g01_c01.avi\r\n\r\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


def test_hmdb51_lists(tmp_path: Path) -> None:
    assert read_splits(write(tmp_path, HMDB), 1) == SplitLists(
        "hmdb51",
        ("brush_hair", "wave"),
        (
            LabelledPath("brush_hair/e!_brush.avi", "brush_hair", "test"),
            LabelledPath("brush_hair/f_brush.avi", "brush_hair", "train"),
            LabelledPath("wave/a_wave_1.avi", "wave", "train"),
            LabelledPath("wave/b[x]_wave.avi", "wave", "test"),
        ),
    )
    second = read_splits(tmp_path / "wave_test_split1.txt", 2)
    assert [(v.path, v.subset) for v in second.videos if v.label == "wave"] == [
        ("wave/a_wave_1.avi", "test"),
        ("wave/b[x]_wave.avi", "train"),
    ]


def test_all_splits_of_hmdb51_list_the_same_videos(tmp_path: Path) -> None:
    expected = (
        "brush_hair/e!_brush.avi",
        "brush_hair/f_brush.avi",
        "wave/a_wave_1.avi",
        "wave/b[x]_wave.avi",
        "wave/c d_wave.avi",  # unused in split 1, absent from split 2
    )
    folder = write(tmp_path, HMDB)
    assert listed_paths(folder) == expected
    assert listed_paths(folder / "wave_test_split2.txt") == expected


def test_all_splits_of_ucf101_list_the_same_videos(tmp_path: Path) -> None:
    second = {
        "trainlist02.txt": "Typing/v_Typing_g01_c01.avi 1\r\nArchery/v_Archery_g09_c01.avi 2\r\n",
        "testlist02.txt": "Typing/v_Typing_g08_c01.avi\r\n",
    }
    assert listed_paths(write(tmp_path, UCF | second)) == (
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g08_c01.avi",
        "Archery/v_Archery_g09_c01.avi",
        "Typing/v_Typing_g01_c01.avi",
        "Typing/v_Typing_g08_c01.avi",
    )


def test_a_csv_has_only_one_split(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label,split\na.mp4,x,train\nb.mp4,x,test\n")
    assert listed_paths(tmp_path / "mine.csv") == ()


def test_ucf101_keeps_the_order_of_class_numbers(tmp_path: Path) -> None:
    assert read_splits(write(tmp_path, UCF), 1) == SplitLists(
        "ucf101",
        ("Typing", "Archery"),
        (
            LabelledPath("Typing/v_Typing_g08_c01.avi", "Typing", "train"),
            LabelledPath("Archery/v_Archery_g08_c01.avi", "Archery", "train"),
            LabelledPath("Archery/v_Archery_g01_c01.avi", "Archery", "test"),
            LabelledPath("Typing/v_Typing_g01_c01.avi", "Typing", "test"),
        ),
    )


def test_csv_with_a_byte_order_mark_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(
        "\ufeffpath,label,split,fps\r\nx/a.mp4,run,train,25\r\n"
        '"x/b, c.mp4",walk,test,25\r\nx/d.mp4,sit,unused,25\r\n'.encode()
    )
    assert read_splits(path, 1) == SplitLists(
        "csv",
        ("run", "walk"),
        (
            LabelledPath("x/a.mp4", "run", "train"),
            LabelledPath("x/b, c.mp4", "walk", "test"),
        ),
    )


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ({}, 1, "no split lists"),
        (HMDB, 3, "no complete split 3"),
        ({"wave_test_split1.txt": "a.avi 3\n"}, 1, "line 1 cannot be read"),
        ({"wave_test_split1.txt": "a.avi\n"}, 1, "line 1 cannot be read"),
        ({"wave_test_split1.txt": "a.avi 1\nb.avi 2\n../b.avi 2\n"}, 1, "line 3 cannot be read"),
        ({"wave_test_split1.txt": "a.avi 1\na.avi 2\n"}, 1, "list a video twice"),
        (UCF, 2, "trainlist02.txt is missing"),
        (UCF | {"testlist01.txt": "Skiing/a.avi\n"}, 1, "testlist01.txt, line 1"),
        (UCF | {"trainlist01.txt": "Typing/a.avi 2\n"}, 1, "trainlist01.txt, line 1"),
        (UCF | {"classInd.txt": "Typing 1\n"}, 1, "classInd.txt, line 1"),
    ],
)
def test_malformed_lists_are_rejected(
    tmp_path: Path, files: dict[str, str], split: int, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read_splits(write(tmp_path, files), split)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "no column split"),
        ("", "no column label, path, split"),
        ("path,label,split\na,b,held\n", "line 2"),
        ("path,label,split\n/a,b,test\n", "line 2"),
        ("path,label,split\na,b,train\n", "mine.csv has no videos for testing"),
    ],
)
def test_a_malformed_csv_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_splits(tmp_path / "mine.csv", 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (UCF | {"trainlist01.txt": ".\n"}, "trainlist01.txt, line 1"),
        (UCF | {"trainlist01.txt": "/ 1\n"}, "trainlist01.txt, line 1"),
        (UCF | {"trainlist01.txt": "Typing/../../x.avi 1\n"}, "trainlist01.txt, line 1"),
        (UCF | {"classInd.txt": "\u00b2 Typing\n"}, "classInd.txt, line 1"),
        (UCF | {"classInd.txt": "1 Typing\n1 Archery\n"}, "classInd.txt, line 2"),
        (UCF | {"classInd.txt": "1 Typing\n2 Typing\n"}, "classInd.txt, line 2"),
        (UCF | {"classInd.txt": "1 Typ\0ing\n"}, "classInd.txt, line 1"),
        (UCF | {"classInd.txt": "1 " + "x" * 10_000}, "classInd.txt, line 1"),
    ],
)
def test_hostile_lists_are_rejected(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_splits(write(tmp_path, files), 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path,label,split\na,b\xff,train\n", "cannot be read"),
        (b"path,label,split\na,b\0,train\n", "line 2"),
        (b"path,label,split\n../a,b,train\n", "line 2"),
        (b"path,label,split\nx/../../a,b,train\n", "line 2"),
        (b"path,label,split\n.,b,train\n", "line 2"),
        (b'path,label,split\n\n"a,b,train\n', "unexpected end of data"),
        (b"path,label,split\n" + b"x" * 200_000 + b",b,train\n", "line 2"),
        (b'path,label,split\na,b,train\n\n"c,d\ne,f,test\n', "line 4 cannot be read"),
        (b'path,label,split\na,"x\ny",train\n', "line 2 cannot be read"),
        (b'path,label,split\na,x,train\n"b\r\nc",x,test\n', "line 3 cannot be read"),
        (b"path,label,split\na,x\x1b[0m,train\n", "line 2 cannot be read"),
        ("path,label,split\na,x\u2028y,train\n".encode(), "line 2 cannot be read"),
        (b"path,label,split\ra,x,train\rb,x,held\r", "line 3 cannot be read"),
        (b'path,label,split,note\na,x,train,"1\n2"\nb,x,held\n', "line 4 cannot be read"),
        (b"a,b,train\n" * 100_000, "no column"),
        (b"path,label,split\n" + b"a,b,train\n" * 100_000, "list a video twice"),
    ],
)
def test_a_hostile_csv_is_rejected(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "mine.csv").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        read_splits(tmp_path / "mine.csv", 1)


def test_line_ends_and_line_breaks_in_other_columns_change_nothing(tmp_path: Path) -> None:
    rows = ["path,label,split,note", "a,x,train,1", " b , x,test,1 ", ""]
    found = []
    for end, note in (("\n", "1"), ("\r", "1"), ("\r\n", "1"), ("\n", '"1\n\n2"')):
        (tmp_path / "mine.csv").write_bytes(end.join(rows).replace("1", note).encode())
        found.append(read_splits(tmp_path / "mine.csv", 1).videos)
    assert found == [(LabelledPath("a", "x", "train"), LabelledPath("b", "x", "test"))] * 4


def test_a_list_that_is_too_large_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinit.pipeline.datasets.splits._MAX_LIST_BYTES", 100)
    write(tmp_path, UCF)
    (tmp_path / "classInd.txt").write_bytes(bytes(101))
    with pytest.raises(DatasetError, match=r"classInd\.txt cannot be read"):
        read_splits(tmp_path, 1)


def test_official_lists_with_a_byte_order_mark(tmp_path: Path) -> None:
    marked = {name: "\ufeff" + text for name, text in UCF.items()}
    (tmp_path / "plain").mkdir()
    (tmp_path / "marked").mkdir()
    plain = read_splits(write(tmp_path / "plain", UCF), 1)
    assert read_splits(write(tmp_path / "marked", marked), 1) == plain


def test_a_csv_may_have_val_videos(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("path,label,split\na,x,train\nb,x,val\nc,x,validation\nd,x,unused\n")
    assert [(video.path, video.subset) for video in read_splits(path, 1).videos] == [
        ("a", "train"),
        ("b", "val"),
        ("c", "val"),
    ]
    path.write_text("path,label,split\na,x,train\nb,x,valid\n")
    with pytest.raises(DatasetError, match="line 3 cannot be read") as raised:
        read_splits(path, 1)
    assert "PATH,LABEL,train|val|test|unused" in str(raised.value)
