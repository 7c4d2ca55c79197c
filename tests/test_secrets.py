"""Keys: nobody else may read them, and nothing lets a guess of one be tested quickly."""

import base64
import bz2
import contextlib
import hashlib
import hmac
import json
import os
import pickle
import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from meeting import forms

from ppfr_ops.errors import UserError
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.sanitize import sealing
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import mark, owner_key, prepare, read_key, read_secrets
from ppfr_ops.store import private
from ppfr_ops.store.private import read_private
from ppfr_ops.vault import Access
from ppfr_ops.vault.generations import Generation


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


@pytest.fixture
def secretive(tmp_path: Path) -> Job:
    """A job with a secret of every kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"x"], "who": ["Jane"]}), tmp_path / "a.parquet")
    job = prepare(
        SanitizeOptions(
            input=str(tmp_path / "a.parquet"),
            output=str(tmp_path / "out"),
            method="blur",
            image_column="image",
            identity_column="who",
        )
    )
    vault = Access("file:///vault", Generation("g", "salt", "check", "r", 0), os.urandom(32))
    own = {"key": os.urandom(32), "pseudonym_key": os.urandom(32), "vault": vault}
    return replace(job, secrets={"mask": os.urandom(16)}, **own)


def secrets_of(job: Job) -> list[bytes]:
    return [job.key, job.pseudonym_key, job.secrets["mask"], job.vault.key]


def test_a_job_travels_with_its_secrets_encrypted_or_not_at_all(secretive: Job) -> None:
    import cloudpickle

    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(TypeError, match="a job with its secrets is not pickled"):
            dumps(secretive)
    with sealing.sealed_job(secretive) as sealed:
        data = cloudpickle.dumps(sealed)
        assert str(secretive.options.output).encode() in data
        for secret in secrets_of(secretive):
            assert not any(form in data for form in forms(secret))
        assert pickle.loads(data).secrets == {}
        assert sealing.opened(pickle.loads(data)) == secretive
    assert not list(Path(secretive.options.output).glob("evidence/ledger/workers/*"))
    with pytest.raises(UserError, match="has its run ended"):
        sealing.opened(sealed)
    sealed, key = sealing.seal(secretive)
    assert sealing.opened(sealed, key) == secretive
    with pytest.raises(UserError, match="do not open"):
        sealing.opened(sealed, os.urandom(32))


def test_what_a_killed_driver_left_goes_with_the_next_run(secretive: Job) -> None:
    left = Path(secretive.options.output) / "evidence/ledger/workers/0000.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    with sealing.sealed_job(secretive) as sealed:
        (found,) = left.parent.iterdir()
        assert found.name == f"{sealed.sealed_under}.json" and found.stat().st_mode & 0o077 == 0


def test_no_pipeline_of_beam_holds_a_key(secretive: Job) -> None:
    import apache_beam as beam

    from ppfr_ops.engines.beam import SanitizeFaces, build

    given = os.urandom(32)
    pipeline = beam.Pipeline()
    with sealing.sealed_job(secretive) as sealed:
        build(pipeline, sealed, [0])
        step = SanitizeFaces(method="blur", metrics="none", identity_column="who", key=given)
        _ = pipeline | "rows" >> beam.Create([{}]) | step
        proto = pipeline.to_runner_api().SerializeToString()
    texts = [proto, *unpacked(proto)]
    assert any(str(secretive.options.output).encode() in text for text in texts)
    for secret in (given, *secrets_of(secretive)):
        assert not any(form in text for form in forms(secret) for text in texts)


def unpacked(proto: bytes) -> list[bytes]:
    """What Beam has pickled, packed with bzip2 or zlib and written in base64."""
    found = []
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", proto):
        with contextlib.suppress(ValueError):
            packed = base64.b64decode(text[: len(text) // 4 * 4])
            for unpack in (bz2.decompress, zlib.decompress):
                with contextlib.suppress(OSError, ValueError, zlib.error):
                    found.append(unpack(packed))
    return found


def test_a_key_of_a_step_is_for_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppfr_ops.engines import beam

    key = beam._ProcessKey(b"k" * 32)
    sent = pickle.dumps(key)
    assert b"kkkk" not in sent and pickle.loads(sent).get() == b"k" * 32
    monkeypatch.setattr(beam, "_PROCESS", b"another")
    with pytest.raises(UserError, match="identity_key_file names a file that they can read"):
        pickle.loads(sent).get()
