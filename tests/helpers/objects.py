"""An S3 server on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server without buckets; yields the environment variables with which it is used."""
    import fsspec
    import requests
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=30)
        fsspec.filesystem("s3").clear_instance_cache()
        try:
            yield variables
        finally:
            fsspec.filesystem("s3").clear_instance_cache()
            server.stop()


@contextmanager
def s3_bucket(name: str) -> Iterator[dict[str, str]]:
    """As ``s3_server``, with one empty bucket."""
    import fsspec

    with s3_server() as variables:
        fsspec.filesystem("s3").mkdir(name)
        yield variables
