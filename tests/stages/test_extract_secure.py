"""Extraction over TLS with a private certificate authority, and from an object store."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from helpers.objects import s3_bucket

from distinit.schemas.errors import CorpusError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

SERVER = """
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[2])
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "distinit test")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(corpus: Path, certificate: Path) -> Iterator[str]:
    """The address of the shared corpus over TLS."""
    command = [sys.executable, "-c", SERVER, str(corpus), str(certificate)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield f"https://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


def config_of(videos: str, folder: Path) -> dict[str, object]:
    return {
        "videos": videos,
        "teachers": [{"name": "null"}],
        "cache": str(folder / "cache"),
        "unit_rows": 64,
        "spool": {"folder": str(folder / "spool"), "limit_gib": 2**-15},
    }


def quiet_digest(corpus: Path, names: tuple[str, ...], folder: Path) -> str:
    folder.mkdir()
    (folder / "list.txt").write_text("\n".join(str(corpus / name) for name in names))
    values = config_of(str(folder / "list.txt"), folder)
    return extract(ExtractConfig.model_validate(values)).content_digest


def test_https_trusts_only_the_authorities_in_ssl_cert_file(
    corpus: Path, secure: str, certificate: Path, tmp_path: Path
) -> None:
    names = ("a.mp4", "b/c.mp4")
    (tmp_path / "list.txt").write_text("\n".join(f"{secure}/{name}" for name in names))
    (tmp_path / "extract.json").write_text(
        json.dumps(config_of(str(tmp_path / "list.txt"), tmp_path))
    )
    command = [sys.executable, "-m", "distinit.cli", "extract", "--quiet", "--json"]
    command += ["--config", str(tmp_path / "extract.json")]
    with pytest.raises(CorpusError, match="none of the 2 videos at URLs can be") as refused:
        extract(ExtractConfig.model_validate(config_of(str(tmp_path / "list.txt"), tmp_path)))
    assert "2 times: its TLS certificate is not trusted (SSL_CERT_FILE" in str(refused.value)
    # A separate process, since each process reads SSL_CERT_FILE once.
    trusting = os.environ | {"SSL_CERT_FILE": str(certificate)}
    ended = subprocess.run(command, env=trusting, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert (result["frames"], result["failed"]) == (53, [])
    assert result["content_digest"] == quiet_digest(corpus, names, tmp_path / "quiet")


def test_an_s3_prefix_gives_the_digest_of_the_files(corpus: Path, tmp_path: Path) -> None:
    import fsspec

    names = ("a.mp4", "b/c.mp4", "e.mp4")
    with s3_bucket("a-corpus"):
        system = fsspec.filesystem("s3")
        for name in names:
            system.put_file(str(corpus / name), f"a-corpus/in/{name}")
        values = config_of("s3://a-corpus/in/", tmp_path)
        result = extract(ExtractConfig.model_validate(values))
        assert (result.videos, result.frames, result.failed) == (3, 94, ())
        assert result.content_digest == quiet_digest(corpus, names, tmp_path / "quiet")
        kept = [p.stat().st_size for p in (tmp_path / "spool").iterdir() if p.name != ".lock"]
        assert sum(kept) <= 2**15
        # An object that changes after it was listed is no longer the video that was planned.
        system.put_file(str(corpus / "long.mp4"), "a-corpus/in/a.mp4")
        again = extract(ExtractConfig.model_validate(values))
        assert (again.frames_done, again.videos) == (150, 3)
