"""Audits, also killed ones, into the folder of an earlier report: nothing of it is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import caches
from helpers.killing import kill_at

from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.stages.audit import audit


@pytest.mark.parametrize(
    ("last", "left"),
    [("alpha-entropy[.]png", set()), ("audit[.]json", {"report.html"})],
    ids=["first figure", "last file"],
)
def test_a_killed_audit_leaves_nothing_of_an_earlier_report(
    last: str, left: set[str], tmp_path: Path
) -> None:
    old = caches.Corpus({"old": 12}, frozenset())
    caches.run_all(tmp_path / "old", old, caches.TEACHERS)
    caches.run_all(tmp_path / "new", caches.CORPUS, caches.TEACHERS)
    out = tmp_path / "report"
    audit(AuditConfig(cache=str(tmp_path / "old"), out=str(out)))
    command = ["audit", str(tmp_path / "new"), "--out", str(out)]
    kill_at(last, "before", command, tmp_path)
    assert {name for name in ("report.html", "audit.json") if (out / name).exists()} == left
    for name in left:
        assert str(tmp_path / "new") in (out / name).read_text()
    result = audit(AuditConfig(cache=str(tmp_path / "new"), out=str(out)))
    assert AuditResult.model_validate_json((out / "audit.json").read_bytes()) == result
    assert not list(out.glob("*.partial"))


def test_the_figures_of_other_teachers_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    corpus, (alpha, beta) = caches.Corpus({"a": 12}), caches.TEACHERS
    caches.run_all(tmp_path / "both", corpus, [alpha, beta])
    caches.run_all(tmp_path / "one", corpus, [beta])
    out = tmp_path / "report"
    before = audit(AuditConfig(cache=str(tmp_path / "both"), out=str(out)))
    assert {"alpha-kept.png", "alpha-beta-joint.pdf", "beta-kept.png"} <= set(before.pictures)
    mine = {"notes.txt", "gamma-kept.png", "holiday.png"}
    for name in mine:
        (out / name).write_text(name)
    (tmp_path / "x-kept.png").write_text("outside")
    forged = before.model_copy(
        update={"pictures": (*before.pictures, "holiday.png", "../x-kept.png", str(tmp_path))}
    )
    (out / "audit.json").write_text(forged.model_dump_json())
    after = audit(AuditConfig(cache=str(tmp_path / "one"), out=str(out)))
    assert {path.name for path in out.iterdir()} == {
        *mine,
        *after.pictures,
        *after.tables,
        "report.html",
        "audit.json",
    }
    assert (tmp_path / "x-kept.png").read_text() == "outside"


def test_a_report_whose_numbers_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus({"a": 12}), caches.TEACHERS[:1])
    out = tmp_path / "report"
    out.mkdir()
    (out / "audit.json").write_text("not JSON")
    (out / "beta-kept.png").write_text("of an unknown report")
    result = audit(AuditConfig(cache=str(tmp_path / "cache"), out=str(out)))
    assert AuditResult.model_validate_json((out / "audit.json").read_bytes()) == result
    assert (out / "beta-kept.png").is_file()
