"""Keys: nobody else may read them, and nothing lets a guess of one be tested quickly."""

import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.sanitize.prepare import mark, owner_key, read_key, read_secrets
from ppfr_ops.store import private
from ppfr_ops.store.private import read_private


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    key.chmod(mode)
    for read in (read_key, load_signing_key):
        with pytest.raises(UserError, match="is open to others; chmod 600 it") as error:
            read(str(key))
        assert str(tmp_path) not in str(error.value)
    key.chmod(0o600)
    assert len(read_key(str(key))) == 64


def test_a_mounted_secret_may_be_read_by_its_group(tmp_path: Path, monkeypatch) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o440)
    with pytest.raises(UserError):
        read_private(str(key), "the key")
    monkeypatch.setattr(private.os, "geteuid", lambda: os.getuid() + 1)
    assert read_private(str(key), "the key") == b"secret"
    key.chmod(0o444)
    with pytest.raises(UserError):
        read_private(str(key), "the key")


def test_pipes_folders_and_nothing_are_no_keys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(UserError, match="the key"):
            read_private(str(tmp_path / name), "the key")


class _Takes:
    secrets = ("mask",)


def test_secrets_of_a_method_are_guarded_too(tmp_path: Path) -> None:
    file = tmp_path / "mask"
    file.write_text("secret")
    file.chmod(0o644)
    with pytest.raises(UserError, match="open to others"):
        read_secrets({"mask": str(file)}, _Takes())  # type: ignore[arg-type]


def test_a_guess_costs_scrypt_wherever_it_is_tested() -> None:
    """Of all that is written, nothing is an HMAC under the key itself, or under its plain hash."""
    weak = b"password12345678"
    quick = {weak, hashlib.sha256(weak).digest(), hmac.digest(weak, b"which key this is", "sha256")}
    assert owner_key(weak, seeded=False) not in quick and mark(weak) != quick
    calls = []
    slow = hashlib.scrypt

    def counted(*args, **named):
        calls.append(named["n"] * named["r"])
        return slow(*args, **named)

    hashlib.scrypt, saved = counted, hashlib.scrypt
    try:
        owner_key(weak, seeded=False)
        mark(weak)
    finally:
        hashlib.scrypt = saved
    assert calls == [2**15 * 8] * 2  # 32 MiB each
    assert owner_key(weak, seeded=True) == weak  # tests only


def test_run_json_tells_no_key(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.prepare import prepare

    pq.write_table(pa.table({"image": [b"x"], "who": ["Jane"]}), tmp_path / "a.parquet")
    (tmp_path / "key").write_text("password12345678")
    job = prepare(
        SanitizeOptions(
            input=str(tmp_path / "a.parquet"),
            output=str(tmp_path / "out"),
            method="blur",
            image_column="image",
            identity_column="who",
            identity_key_file=str(tmp_path / "key"),
        )
    )
    text = json.dumps(dict(job.settings))
    old = hmac.new(b"password12345678", b"identity|which key this is", hashlib.sha256).hexdigest()
    plain = hmac.new(b"password12345678", b"which key this is", hashlib.sha256).hexdigest()
    assert old[:16] not in text and plain[:16] not in text
    assert hashlib.sha256(json.dumps(plain[:16]).encode()).hexdigest() not in text
