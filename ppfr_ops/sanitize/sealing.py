"""How a job travels to its workers: its secrets encrypted, and the key to them by another way.

Engines put a job where it may be copied and kept: Ray's object store spills to disk, and runners of
Beam keep the pipelines that they are given. So whatever a job knows that must not be known to who
reads that is encrypted (AES-256-GCM) under a key that is drawn for one pass over the units. The key
goes through a pipe where workers are children of this machine; elsewhere it lies with the owner's
evidence, which workers can read anyway, until the pass ends.
"""

import os
import pickle
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.job import SECRETS, Job
from ppfr_ops.store.ledger import LEDGER, Ledger

PLACE = (*LEDGER, "workers")
"""Where workers find keys of jobs."""

_NONCE_BYTES = 12


def seal(job: Job) -> tuple[Job, bytes]:
    """A job that can be pickled, and the 32 bytes that ``opened`` needs."""
    key, nonce = AESGCM.generate_key(256), os.urandom(_NONCE_BYTES)
    clear = pickle.dumps({name: getattr(job, name) for name in SECRETS})
    sealed = nonce + AESGCM(key).encrypt(nonce, clear, None)
    return replace(job, **job.nothing_secret(), sealed=sealed), key


def opened(job: Job, key: bytes | None = None) -> Job:
    """The job with its secrets.

    Args:
        key: from ``seal``; None: it lies in the output.

    Raises:
        UserError: the key is gone or another one.
    """
    if job.sealed is None:
        return job
    if key is None:
        found = Ledger(job.options.output).read(*PLACE, f"{job.sealed_under}.json")
        key = bytes.fromhex(str((found or {}).get("key", "")))
    try:
        clear = AESGCM(key).decrypt(job.sealed[:_NONCE_BYTES], job.sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise UserError("the job's secrets do not open: has its run ended?") from None
    return replace(job, **pickle.loads(clear), sealed=None, sealed_under="")


@contextmanager
def sealed_job(job: Job) -> Iterator[Job]:
    """The job as workers anywhere may get it; the key lies in the output meanwhile."""
    if not job.has_secrets:
        yield job
        return
    ledger = Ledger(job.options.output, job.fence)
    if not ledger.fenced_off():
        for name in ledger.names(*PLACE):  # of a driver that was killed
            ledger.remove(*PLACE, name)
    sealed, key = seal(job)
    name = secrets.token_hex(16)
    ledger.write({"key": key.hex()}, *PLACE, f"{name}.json")
    try:
        yield replace(sealed, sealed_under=name)
    finally:
        ledger.remove(*PLACE, f"{name}.json")
