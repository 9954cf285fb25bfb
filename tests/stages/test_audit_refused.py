"""Inputs that the audit refuses before it reads a cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.schemas.audit import AuditConfig
from distinit.schemas.errors import ConfigError
from distinit.stages.audit import audit


@pytest.mark.parametrize("secret", ["http://me:hunter2@host/x", "https://host/x?token=hunter2"])
@pytest.mark.parametrize("compared", [False, True])
def test_urls_with_secrets_are_refused(tmp_path: Path, secret: str, compared: bool) -> None:
    cache, compare = ("cache", (secret,)) if compared else (secret, ())
    with pytest.raises(ConfigError, match="has a user, a password or a query") as raised:
        audit(AuditConfig(cache=cache, compare=compare, out=str(tmp_path / "out")))
    assert "hunter2" not in str(raised.value)
    assert not (tmp_path / "out").exists()
