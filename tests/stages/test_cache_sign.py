"""``cache keygen``, ``sign`` and ``verify --signed-by``: a published key proves the sender."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.caches import CORPUS, TEACHERS, make_teacher, run_all
from helpers.command_line import run_command
from helpers.progress import RecordingProgress
from helpers.signing import key_pair, rewrite_signature

from distinit.pipeline.cache import signing_library
from distinit.schemas.errors import CacheError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.cache_sign import cache_keygen, cache_sign
from distinit.stages.cache_verify import CacheVerification, cache_verify
from distinit.stages.extract import extract

SHARDS = ("teachers/alpha/logits/c/1/0", "teachers/alpha/logits/c/2/0")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a signed cache and two pairs of keys: ``team`` and ``other``."""
    folder = tmp_path_factory.mktemp("signed")
    run_all(folder / "cache", CORPUS, TEACHERS)
    private, _ = key_pair(folder)
    key_pair(folder, "other")
    cache_sign(folder / "cache", private)
    return folder


@pytest.fixture
def work(signed: Path, tmp_path: Path) -> Path:
    """A copy of ``signed`` that a test may change."""
    shutil.copytree(signed, tmp_path / "work")
    return tmp_path / "work"


def check(work: Path, key: str = "team.pub") -> CacheVerification:
    return cache_verify(work / "cache", deep=True, signed_by=work / key)


def problems(work: Path, key: str = "team.pub") -> tuple[str, ...]:
    outcome = check(work, key).signature
    assert outcome is not None
    return outcome.problems


def test_the_sender_s_key_proves_every_file(signed: Path) -> None:
    result = check(signed)
    assert result.ok
    assert result.problems == ()
    assert result.signature is not None
    files = [p for p in (signed / "cache").rglob("*") if p.is_file()]
    assert result.signature.files == len(files) - 2, "all but cache.sig and .lock"
    code, output = run_command(
        ["cache", "verify", str(signed / "cache"), "--signed-by", str(signed / "team.pub")]
    )
    assert code == 0
    sha256 = result.signature.key_sha256
    assert f"  signed    by {signed / 'team.pub'} (sha256 {sha256}): all " in output


def test_the_command_line_of_model_signing_verifies_it_alone(work: Path) -> None:
    def verify() -> int:
        command = [sys.executable, "-m", "model_signing", "verify", "key", "cache"]
        options = ["--signature", "cache/cache.sig", "--public_key", "team.pub"]
        return subprocess.run([*command, *options], cwd=work, check=False).returncode

    assert verify() == 0
    (work / "cache" / "README.md").write_bytes(b"another card")
    assert verify() != 0


def test_a_signature_that_model_signing_made_is_accepted(work: Path) -> None:
    command = [sys.executable, "-m", "model_signing", "sign", "key", "cache"]
    options = ["--signature", "cache/cache.sig", "--private_key", "other"]
    (work / "cache" / ".lock").unlink(missing_ok=True)
    subprocess.run([*command, *options], cwd=work, check=True)
    assert check(work, "other.pub").ok


def test_two_exchanged_files_are_found_although_both_are_intact(work: Path) -> None:
    first, second = (work / "cache" / name for name in SHARDS)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert problems(work) == tuple(f"{name}: not the bytes that were signed" for name in SHARDS)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["manifest.json", "manifest-sha256.txt", "README.md", "plan.parquet", SHARDS[0]]
)
def test_one_changed_byte_is_found_in_any_file(work: Path, name: str) -> None:
    flip(work / "cache" / name)
    assert f"{name}: not the bytes that were signed" in problems(work)
    code, output = run_command(
        ["cache", "verify", str(work / "cache"), "--signed-by", str(work / "team.pub")]
    )
    assert code == 1
    assert f"NOT SIGNED as it is by {work / 'team.pub'}:" in output


def test_added_and_removed_files_are_named(work: Path) -> None:
    (work / "cache" / "extra.txt").write_text("x")
    (work / "cache" / "videos.parquet").unlink()
    assert problems(work) == ("extra.txt: not signed", "videos.parquet: signed, but not here")


def test_files_added_below_a_private_name_are_named(work: Path) -> None:
    for name in (".fence", ".lock"):
        (work / "cache" / name).unlink(missing_ok=True)
        (work / "cache" / name).mkdir()
        (work / "cache" / name / "extra.txt").write_text("x")
    assert problems(work) == (".fence/extra.txt: not signed", ".lock/extra.txt: not signed")


def test_a_cache_that_grew_is_no_longer_what_was_signed(work: Path) -> None:
    run_all(work / "cache", CORPUS, [*TEACHERS, make_teacher("gamma", classes=3)])
    result = check(work)
    assert result.problems == ()
    assert result.exit_code == 1
    assert "manifest.json: not the bytes that were signed" in problems(work)
    assert "teachers/gamma/teacher.json: not signed" in problems(work)
    assert "sign it again if it is yours" in result.summary()
    cache_sign(work / "cache", work / "team")
    assert check(work).exit_code == 0


def test_a_copy_with_one_teacher_names_what_is_absent(work: Path) -> None:
    shutil.rmtree(work / "cache" / "teachers" / "beta")
    lines = problems(work)
    assert "teachers/beta/teacher.json: signed, but not here" in lines
    assert all(line.startswith("teachers/beta/") for line in lines)


def test_another_key_and_a_missing_signature_give_exit_code_1(work: Path) -> None:
    (line,) = problems(work, "other.pub")
    assert line.startswith("cache.sig: made with another key: its public key has sha256 ")
    assert check(work, "other.pub").exit_code == 1
    (work / "cache" / "cache.sig").unlink()
    assert problems(work) == ("cache.sig: missing: the cache is not signed",)
    assert check(work).exit_code == 1
    assert cache_verify(work / "cache", deep=True).exit_code == 0


def _claim_key(sha256: str) -> Any:
    def change(bundle: dict[str, Any], _statement: dict[str, Any]) -> None:
        bundle["verificationMaterial"]["publicKey"]["hint"] = sha256

    return change


def test_a_signature_that_only_claims_the_key_is_not_valid(work: Path) -> None:
    outcome = check(work, "other.pub").signature
    assert outcome is not None
    rewrite_signature(work / "cache" / "cache.sig", _claim_key(outcome.key_sha256))
    assert problems(work, "other.pub") == (
        "cache.sig: not valid: the signature does not belong to what it claims to sign",
    )


def test_digests_that_were_changed_in_the_signature_are_not_valid(work: Path) -> None:
    def change(_bundle: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"][0]["digest"] = "0" * 64

    rewrite_signature(work / "cache" / "cache.sig", change)
    assert problems(work) == (
        "cache.sig: not valid: the signature does not belong to what it claims to sign",
    )


def _set(*keys: str, value: Any) -> Any:
    """A change of one value; the first key says whether of the bundle or the statement."""

    def change(bundle: dict[str, Any], statement: dict[str, Any]) -> None:
        place: Any = {"bundle": bundle, "statement": statement}
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _resource(**fields: str) -> list[dict[str, str]]:
    return [{"name": "a", "algorithm": "sha256", "digest": "0" * 64} | fields]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("bundle", "mediaType", value="text/plain"), 'mediaType is "text/plain"'),
        (_set("bundle", "dsseEnvelope", "payloadType", value="a"), 'payloadType is "a" instead'),
        (_set("bundle", "dsseEnvelope", "signatures", value=[]), "not exactly one signature"),
        (_set("bundle", "verificationMaterial", value={}), "publicKey.hint is missing"),
        (_set("statement", "predicateType", value="slsa"), 'predicateType is "slsa" instead'),
        (_set("statement", "predicate", "resources", value=7), "resources is missing"),
        (
            _set("statement", "predicate", "serialization", "hash_type", value="blake3"),
            'hash_type is "blake3" instead of sha256',
        ),
        (
            _set("statement", "predicate", "resources", value=_resource(algorithm="blake3")),
            'the digest of "a" is not a sha256',
        ),
        (
            _set("statement", "predicate", "resources", value=_resource(digest="0" * 63)),
            'the digest of "a" is not a sha256',
        ),
        (
            _set("statement", "predicate", "resources", value=2 * _resource()),
            'the file name "a" is empty, too long or occurs twice',
        ),
    ],
)
def test_other_statements_are_refused_in_plain_words(work: Path, change: Any, words: str) -> None:
    rewrite_signature(work / "cache" / "cache.sig", change)
    (line,) = problems(work)
    assert line.startswith("cache.sig: not a signature of a cache: ")
    assert words in line


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a":1,"a":2}'])
def test_files_that_are_no_signature_are_refused(work: Path, data: bytes) -> None:
    (work / "cache" / "cache.sig").write_bytes(data)
    (line,) = problems(work)
    assert line.startswith("cache.sig: not a signature of a cache: ")


def test_a_huge_signature_is_refused_before_it_is_read(work: Path) -> None:
    with (work / "cache" / "cache.sig").open("wb") as file:
        file.truncate(1 << 40)
    assert problems(work) == ("cache.sig: not a signature of a cache: more than 67,108,864 bytes",)


def test_a_damaged_or_incomplete_cache_is_not_signed(work: Path) -> None:
    (work / "cache" / "cache.sig").unlink()
    flip(work / "cache" / SHARDS[0])
    code, output = run_command(["cache", "sign", str(work / "cache"), "--key", str(work / "team")])
    assert code == 1
    assert "is damaged: it was not signed" in output
    assert not (work / "cache" / "cache.sig").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--signed-by", "nowhere"], "which the sender of the cache publishes"),
        (["--signed-by", "team"], "a private key, which nobody else may have"),
        (["--signed-by", "cache/README.md"], "cannot be used as the public key"),
        (["--signed-by", "team.pub", "--quick"], "leave --quick out"),
        (["--signed-by", "team.pub", "--repair"], "leave --signed-by out"),
    ],
)
def test_a_key_that_cannot_be_used_is_a_mistake_of_usage(
    work: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    code, output = run_command(["cache", "verify", "cache", *options])
    assert code == 2
    assert words in output


def test_keys_are_private_and_never_replaced(tmp_path: Path) -> None:
    made = cache_keygen(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    before = (tmp_path / "key").read_bytes()
    code, output = run_command(["cache", "keygen", "--out", str(tmp_path / "key")])
    assert code == 2
    assert "keys are never replaced" in output
    (tmp_path / "key").rename(tmp_path / "moved")
    assert run_command(["cache", "keygen", "--out", str(tmp_path / "key")])[0] == 2
    assert (tmp_path / "moved").read_bytes() == before
    assert len(made.key_sha256) == 64


def test_a_key_with_a_password_signs_only_with_it(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "a password")
    cache_keygen(work / "safe", password_variable="SECRET")
    sign = ["cache", "sign", str(work / "cache"), "--key", str(work / "safe")]
    code, output = run_command(sign)
    assert (code, "give --password-env" in output) == (2, True)
    assert run_command([*sign, "--password-env", "SECRET"])[0] == 0
    assert check(work, "safe.pub").ok
    monkeypatch.setenv("SECRET", "another password")
    assert run_command([*sign, "--password-env", "SECRET"])[0] == 2
    assert "is not set" in run_command([*sign, "--password-env", "UNSET"])[1]


def test_a_key_inside_a_cache_and_a_key_of_another_kind_are_refused(work: Path) -> None:
    code, output = run_command(["cache", "keygen", "--out", str(work / "cache" / "key")])
    assert (code, "nothing else is written there" in output) == (2, True)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (work / "ed25519").write_bytes(pem)
    sign = ["cache", "sign", str(work / "cache"), "--key", str(work / "ed25519")]
    code, output = run_command(sign)
    assert (code, "an elliptic curve key (NIST P-256, P-384 or P-521)" in output) == (2, True)


def test_without_model_signing_the_message_names_the_extra(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name="model_signing")

    monkeypatch.setattr(signing_library, "import_module", fail)
    for line in (
        ["cache", "sign", str(work / "cache"), "--key", str(work / "team")],
        ["cache", "verify", str(work / "cache"), "--signed-by", str(work / "team.pub")],
    ):
        code, output = run_command(line)
        assert code == 2
        assert "pip install '.[sign]'" in output
    assert run_command(["cache", "verify", str(work / "cache")])[0] == 0


def test_extract_warns_when_it_changes_a_signed_cache(
    corpus: Path, tmp_path: Path, signed: Path
) -> None:
    def run(*teachers: str) -> list[str]:
        progress = RecordingProgress()
        values = {
            "videos": str(corpus),
            "teachers": [{"name": "null", "id": name} for name in teachers],
            "cache": str(tmp_path / "cache"),
        }
        extract(ExtractConfig.model_validate(values), progress=progress)
        return [line for line in progress.messages if "cache.sig" in line]

    assert run("null") == []
    cache_sign(tmp_path / "cache", signed / "team")
    assert run("null") == []
    assert cache_verify(tmp_path / "cache", deep=True, signed_by=signed / "team.pub").ok
    assert run("null", "other") == [
        "warning: cache.sig signs this cache as it was before: sign it again with "
        "`distinit cache sign`"
    ]


def test_a_partial_copy_is_signed_if_all_of_its_files_are(signed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    pull = ["cache", "pull", str(signed / "cache"), str(copy), "--teacher", "alpha"]
    code, output = run_command(pull)
    assert code == 0, output
    result = cache_verify(copy, deep=True, signed_by=signed / "team.pub")
    assert (result.ok, result.problems) == (True, ())
    whole = check(signed).signature
    assert result.signature is not None
    assert whole is not None
    beta = [p for p in (signed / "cache" / "teachers" / "beta").rglob("*") if p.is_file()]
    assert (result.signature.absent, whole.absent) == (len(beta), 0)
    assert result.signature.files == whole.files - len(beta)
    assert f"; {len(beta)} more are not part of this copy" in result.summary()
    flip(copy / SHARDS[0])
    changed = cache_verify(copy, deep=True, signed_by=signed / "team.pub")
    assert changed.exit_code == 1
    assert changed.signature is not None
    assert changed.signature.problems == (f"{SHARDS[0]}: not the bytes that were signed",)


def test_a_partial_copy_cannot_be_signed(signed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    pull = ["cache", "pull", str(signed / "cache"), str(copy), "--teacher", "alpha"]
    assert run_command(pull)[0] == 0
    with pytest.raises(CacheError, match="which is only read: it was not signed") as found:
        cache_sign(copy, signed / "team")
    assert "1 of 2 teachers" in str(found.value.found)
