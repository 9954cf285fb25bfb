"""An audit that is killed while it writes its report: no old page lies beside new tables."""

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
