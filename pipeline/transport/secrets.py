"""Refuses addresses with passwords or tokens where they would be stored or published."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from distinit.pipeline.transport.remote import is_url, public_url
from distinit.schemas.errors import ConfigError
from distinit.schemas.provenance import Provenance

__all__ = ["refuse_secrets", "refuse_stated_secrets"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SECRET_KEY = re.compile(r"token|key|secret|passw|pwd|auth|credential|signature|^sig$", re.I)


def refuse_secrets(cache: str, *, kept_in: str) -> None:
    """Raise ConfigError for a URL of a cache with credentials, which ``kept_in`` would store.

    Raises CorpusError for a malformed URL.
    """
    if is_url(cache) and public_url(cache) != cache:
        raise ConfigError(
            f"the URL of the cache {public_url(cache)} has a user, a password or a query",
            expected=f"a URL without secrets: {kept_in} stores it",
            remedy="set the credentials in the environment, or in ~/.netrc for https://",
        )


def refuse_stated_secrets(stated: Provenance) -> None:
    """Raise ConfigError for a URL with a user or a token, which all receivers would see."""
    for name, text in stated.stated.items():
        if any(_has_secret(url) for url in _URL.findall(text)):
            raise ConfigError(
                f"--{name} contains a URL with a user, a password or a token",
                expected="a URL that everyone may see: it is written to the manifest, README.md "
                "and croissant.json",
                remedy=f"give --{name} without the secret parts of the URL",
            )


def _has_secret(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL after all
        return False
    keys = [key for key, _ in parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True)]
    return "@" in parts.netloc or any(_SECRET_KEY.search(key) for key in keys)
