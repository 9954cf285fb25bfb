"""A web server on the loopback interface from which videos are downloaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.web import WebFolder, serve


@pytest.fixture
def web() -> Iterator[WebFolder]:
    yield from serve(WebFolder())
